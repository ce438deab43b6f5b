// The label page: a shelf of items, one on the screen, an answer that is kept before the next one comes.
import { el, fill, letter, uuid7, writing } from "./dom.js";
import { Keep } from "./keep.js";
import * as approval from "./kinds/approval.js";
import * as comparison from "./kinds/comparison.js";
import * as correction from "./kinds/correction.js";
import * as critique from "./kinds/critique.js";
import * as demonstration from "./kinds/demonstration.js";
import * as form from "./kinds/form.js";
import * as ranking from "./kinds/ranking.js";
import * as rating from "./kinds/rating.js";

const KINDS = { approval, comparison, correction, critique, demonstration, ranking, rating };
const AHEAD = 3; // on the screen, and two behind it
const BEAT = 60_000; // a sign of life, for leases of fifteen minutes
const IDLE = 60_000; // who does nothing for so long is not working

const $ = (selector) => document.querySelector(selector);
const main = $("main");
const { run, person } = main.dataset;
const home = `/r/${encodeURIComponent(run)}/api`;
const keep = new Keep(home, person);

let shelf = []; // items that are here already
let now = null; // { item, draft, control }
let history = []; // queries answered, the newest last
let active = 0; // milliseconds at this item
let touched = performance.now();
let today = 0;
let spent = 0;
let fetching = null;
let ended = false;

// The clock that counts only while somebody is there.

let tick = performance.now();
function clock() {
  const then = tick;
  tick = performance.now();
  if (document.hidden || tick - touched > IDLE || !now) return;
  active += tick - then;
  spent += tick - then;
}
setInterval(() => {
  clock();
  tally();
}, 1000);
["pointerdown", "pointermove", "keydown", "wheel", "touchstart"].forEach((name) =>
  addEventListener(name, () => (touched = performance.now()), { passive: true }));

// What the line at the top says.

const WORDS = {
  idle: () => "ready",
  saving: () => "saving…",
  saved: (state) => `saved ${state.at} · online`,
  offline: (state) => `offline: ${state.waiting} waiting, keep working${state.why ? ` (${state.why})` : ""}`,
  "sign in": (state) => `sign in again: ${state.waiting} waiting`,
  rejected: () => "not taken: see below",
};

keep.addEventListener("state", ({ detail }) => {
  const state = $("#state");
  state.dataset.state = detail.kind;
  state.querySelector(".words").textContent = WORDS[detail.kind](detail);
  if (detail.kind === "sign in" && !$("#sign-in").open) $("#sign-in").showModal();
  if (detail.kind === "saved" && $("#sign-in").open) $("#sign-in").close();
});

function tally() {
  $("#tally").textContent = `${today} answered · ${Math.floor(spent / 60_000)} min active`;
}

function say(words, kind = "") {
  const notice = $("#notice");
  notice.textContent = words;
  notice.className = `notice ${kind}`;
  notice.hidden = !words;
}

// Getting items.

async function restock() {
  if (fetching) return fetching;
  const hold = [...shelf, ...(now ? [now.item] : [])].map((item) => item.query);
  const waiting = (await keep.waiting()).map((one) => one.query); // answered here, not yet there
  fetching = (async () => {
    const wanted = AHEAD - shelf.length - (now ? 1 : 0);
    if (wanted <= 0) return;
    const response = await fetch(`${home}/next?count=${wanted}&hold=${[...hold, ...waiting].join(",")}`);
    if (response.status === 401) return $("#sign-in").showModal();
    const told = await response.json();
    if (!response.ok) {
      ended = true;
      return show(null, told.detail);
    }
    shelf.push(...told.items.filter((item) => ![...shelf, now?.item].some((other) => other?.query === item.query)));
    today = Math.max(today, told.answered);
    ended = told.items.length < wanted;
    document.body.classList.toggle("screening", told.screening);
    $("#quick-label").hidden = !told.quick;
    if (told.code) $("#code").replaceChildren("Done. Your code: ", el("code", {}, told.code));
    $("#code").hidden = !told.code;
    tally();
  })().catch(() => {}).finally(() => (fetching = null));
  return fetching;
}

async function advance() {
  if (!shelf.length) await restock();
  const item = shelf.shift() ?? null;
  await show(item);
  restock();
}

// Putting one on the screen.

async function show(item, words = "") {
  clock();
  now = null;
  active = 0;
  touched = performance.now();
  $("#controls").hidden = !item;
  $("#empty").hidden = Boolean(item);
  $("#prompt").replaceChildren();
  $("#items").replaceChildren();
  if (!item) {
    const offline = !navigator.onLine;
    $("#empty").replaceChildren(
      el("h1", {}, words || (offline ? "You are offline" : "That is all for now")),
      el("p", {}, offline ? "What you said is safe here. New items come when the connection is back." : "New items appear here by themselves."));
    return;
  }
  const draft = (await keep.draft(item.query)) ?? { query: item.query, id: null, answer: {}, flags: [], note: "", seconds: 0, supersedes: "" };
  const kind = KINDS[item.kind] ?? form;
  active = draft.seconds * 1000;
  const last = item.prompt.length - 1;
  const turns = item.prompt.map((turn) => fill(el("div", { class: `turn ${turn.role}`, "data-role": turn.role }), turn.html));
  if (last > 0) $("#prompt").append(el("details", { class: "earlier" }, el("summary", {}, `${last} earlier ${last > 1 ? "turns" : "turn"}`), ...turns.slice(0, -1)));
  $("#prompt").append(turns[last]);
  const many = item.kind === "ranking";
  $("#items").className = `n${Math.min(item.items.length, 9)}`;
  $("#items").append(...item.items.map((one, i) => {
    const text = el("div", { class: "text", lang: "" });
    if (kind.raw) text.textContent = one.text;
    else fill(text, one.html);
    const name = item.items.length === 1 ? "Answer" : many ? `Answer ${i + 1}` : letter(i);
    return el("article", { class: "item", "aria-label": name, "data-item": one.id }, el("h2", {}, name, el("span", { class: "place" })), text);
  }));
  $("#instruction").textContent = item.instruction;
  const control = kind.make(item, draft.answer, (chosen) => change(chosen));
  now = { item, draft, control, kind };
  $("#control").replaceChildren(control.node);
  $("#note").value = draft.note;
  showFlags();
  offer();
  main.scrollTop = 0;
  $("#help-keys").replaceChildren(el("p", {}, kind.keys), el("p", {}, "Enter: submit. S: skip. U: change your last answer. W: say why. G: guidelines. F, then a digit: flags. Ctrl+Enter submits while you write."));
  const text = $("#control textarea");
  if (text && !matchMedia("(pointer: coarse)").matches) text.focus();
  else main.focus({ preventScroll: true });
}

function showFlags() {
  const names = JSON.parse(main.dataset.flags);
  $("#flags").replaceChildren(...names.map((name) => {
    const value = name.toLowerCase();
    return el("button", { type: "button", class: "flag", "aria-pressed": String(now.draft.flags.includes(value)), onclick: () => flag(value) }, name);
  }));
}

function flag(value) {
  const { flags } = now.draft;
  now.draft.flags = flags.includes(value) ? flags.filter((one) => one !== value) : [...flags, value];
  showFlags();
  change(false);
}

function offer() {
  $("#submit").disabled = !now.control.ready();
  $("#edit").hidden = !now.control.better();
}

// A change is kept at once for choices, and every two seconds while somebody writes.

let pending = null;

function change(chosen) {
  if (!now) return;
  now.draft.id ??= uuid7();
  offer();
  if (chosen && $("#quick").checked && !$("#quick-label").hidden && now.control.ready()) return submit();
  pending ??= setTimeout(stash, chosen ? 0 : 2000);
}

function stash() {
  clearTimeout(pending);
  pending = null;
  if (now?.draft.id) return keep.saveDraft({ ...now.draft, seconds: active / 1000 });
}

async function submit() {
  if (!now || !now.control.ready()) return;
  clock();
  const { item, draft, control } = now;
  clearTimeout(pending);
  pending = null;
  now = null;
  performance.mark("submit");
  const answer = control.body ? control.body() : draft.answer;
  const said = {
    id: draft.id ?? uuid7(), query: item.query, answer, shown: item.items.map((one) => one.id),
    seconds: Math.round(active) / 1000, note: $("#note").value, flags: draft.flags, supersedes: draft.supersedes,
  };
  await keep.submit({ ...said, item });
  if (!draft.supersedes) today += 1;
  history = [...history.filter((one) => one.item.query !== item.query), { item, said }].slice(-50);
  say("");
  await advance();
  performance.measure("next", "submit");
}

async function skip() {
  if (!now) return;
  const { item } = now;
  await keep.dropDraft(item.query);
  fetch(`${home}/skip`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ queries: [item.query] }) }).catch(() => {});
  say("");
  await advance();
}

// Bring the last answer back as it was; what is submitted then supersedes it.
async function undo() {
  let last = history.pop();
  if (!last) {
    const before = await fetch(`${home}/mine?count=1`).then((response) => (response.ok ? response.json() : [])).catch(() => []);
    if (!before.length) return say("There is nothing to undo.");
    const item = await fetch(`${home}/item/${before[0].query}`).then((response) => response.json());
    last = { item, said: before[0] };
  }
  if (now) {
    await stash();
    shelf.unshift(now.item);
  }
  await reopen(last.item, last.said, last.said.id);
  say("Your last answer: change it and submit it again. The one before stays on record as replaced.");
}

async function reopen(item, said, supersedes) {
  await keep.saveDraft({ query: item.query, id: uuid7(), answer: structuredClone(said.answer), flags: said.flags, note: said.note, seconds: 0, supersedes });
  await show(item);
}

// An answer that the server would not take: it comes back as it was.
keep.addEventListener("returned", ({ detail }) => giveBack(detail));

async function giveBack(back) {
  if (now && now.item.query !== back.query) {
    await stash();
    shelf.unshift(now.item);
  }
  shelf = shelf.filter((item) => item.query !== back.query);
  await keep.forget(back.id);
  await reopen(back.item, back, back.before || back.supersedes);
  say(back.before ? "You answered this in another tab. Submit it to replace that answer, or skip it." : `Not taken: ${back.why}. Your answer stands below; change it, or copy it out.`, "alert");
  const copy = el("button", { type: "button", class: "quiet", onclick: () => navigator.clipboard.writeText(JSON.stringify(back.answer)) }, "copy");
  $("#notice").append(" ", copy);
}

keep.addEventListener("kept", ({ detail: { told } }) => {
  if (told.right === null || told.right === undefined) return;
  say(`${told.right ? "✓ Right." : "✗ Not quite."} ${told.explanation}`, told.right ? "good" : "alert");
});

// Correct the answer that was just preferred.
async function edit() {
  const better = now?.control.better();
  if (!better) return;
  const response = await fetch(`${home}/correct`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query: now.item.query, item: better }) }).catch(() => null);
  if (!response?.ok) return say("That needs a connection.");
  shelf.unshift(await response.json());
  await submit();
}

// Keys; none of them works while somebody writes, but Escape and Ctrl+Enter.

let flagging = false;

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.preventDefault(), submit();
  if (writing(event)) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "note")) event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !now) return event.key.toLowerCase() === "u" && !event.ctrlKey && !event.metaKey ? undo() : undefined;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (flagging) {
    flagging = false;
    const name = $("#flags").children[Number(key) - 1];
    if (name) return event.preventDefault(), name.click();
  }
  if (now.control.key(key)) return event.preventDefault();
  const button = event.target.closest?.("button, a, summary");
  const actions = { Enter: button ? null : submit, s: skip, u: undo, g: () => $("#guidelines").showModal(), w: () => $("#note").focus(),
    e: edit, "?": () => $("#help").showModal(), f: () => { flagging = true; say("Flag: press its number."); } };
  if (actions[key]) event.preventDefault(), actions[key]();
});

$("#submit").addEventListener("click", submit);
$("#skip").addEventListener("click", skip);
$("#undo").addEventListener("click", undo);
$("#edit").addEventListener("click", edit);
$("#guide").addEventListener("click", () => $("#guidelines").showModal());
$("#help-button").addEventListener("click", () => $("#help").showModal());
$("#note").addEventListener("input", () => {
  now.draft.note = $("#note").value;
  change(false);
});

$("#sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = $("#sign-in-words");
  const response = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(event.target)), redirect: "manual" }).catch(() => null);
  const me = await fetch("/api/me").then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
  words.hidden = Boolean(me);
  if (!me) return (words.textContent = response ? "No account with this name and password." : "The server cannot be reached.");
  if (me.id !== person) return location.reload();
  event.target.reset();
  $("#sign-in").close();
  await keep.drain(true);
  if (!now) advance();
});

// While the page is open: signs of life, new items when there were none, and comparing notes after a time offline.

setInterval(() => {
  const queries = [...shelf, ...(now ? [now.item] : [])].map((item) => item.query);
  if (queries.length && !document.hidden)
    fetch(`${home}/heartbeat`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ queries }) }).catch(() => {});
}, BEAT);
setInterval(() => {
  if (!now && !document.hidden && $("#empty").hidden === false) advance();
}, 5000);
addEventListener("online", async () => {
  await keep.reconcile().catch(() => {});
  if (!now) advance();
});
addEventListener("pagehide", () => stash());
addEventListener("visibilitychange", () => document.hidden && stash());

await keep.ready;
keep.drain(true);
for (const back of await keep.returned()) await giveBack(back);
if (!now) await advance();
keep.reconcile().catch(() => {});
document.body.dataset.ready = "yes";
