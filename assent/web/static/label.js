// The label page: a shelf of items, one on the screen, an answer that is kept before the next one comes.
import { base, el, fill, keyOf, letter, writing } from "./dom.js";
import { Keep, send } from "./keep.js";
import { signIn } from "./signin.js";
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
const DEAF = 400; // after a new item: a second click or key was meant for the one before
const IDLE = 60_000; // who does nothing for so long is not working

const $ = (selector) => document.querySelector(selector);
const main = $("main");
const { run, person } = main.dataset;
const home = `${base}/r/${encodeURIComponent(run)}/api`;
const keep = new Keep(home, person);
const session = signIn(person, async () => {
  await keep.drain(true);
  more();
});

let shelf = []; // items that are here already
let now = null; // { item, draft, control }
let history = []; // queries answered, the newest last
let active = 0; // milliseconds at this item
let touched = performance.now();
let fetching = null;
let trouble = ""; // why no more items came
let others = false; // whether other people hold the rest
let deaf = false; // for a moment after a new item
let views = []; // texts on the screen: { node, html, text }

// The clock that counts only while somebody is there.

let tick = performance.now();
function clock() {
  const then = tick;
  tick = performance.now();
  if (document.hidden || tick - touched > IDLE || !now) return;
  active += tick - then;
  tally(0, tick - then);
}
setInterval(clock, 1000);
["pointerdown", "pointermove", "keydown", "wheel", "touchstart"].forEach((name) =>
  addEventListener(name, () => (touched = performance.now()), { passive: true }));

// What the line at the top says.

const WORDS = {
  idle: () => "ready",
  saving: () => "saving…",
  saved: (state) => `saved ${state.at}`,
  offline: (state) => `offline: ${state.waiting} waiting, keep working${state.why ? ` (${state.why})` : ""}`,
  "sign in": (state) => `sign in again: ${state.waiting} waiting`,
  rejected: () => "not taken: see below",
};

keep.addEventListener("state", ({ detail }) => {
  const state = $("#state");
  state.dataset.state = detail.kind;
  state.querySelector(".words").textContent = WORDS[detail.kind](detail);
  if (detail.kind === "sign in") session.open();
  if (detail.kind === "saved") session.close();
});

// What was done today, on this machine.
function tally(answered, spent) {
  const name = `assent tally ${run} ${person}`, day = new Date().toDateString();
  const before = JSON.parse(localStorage.getItem(name) ?? "{}");
  const there = before.day === day ? before : { day, answered: 0, spent: 0 };
  const told = { day, answered: there.answered + answered, spent: there.spent + spent };
  if (answered || spent) localStorage.setItem(name, JSON.stringify(told));
  $("#tally").textContent = `${told.answered} today · ${Math.floor(told.spent / 60_000)} min active`;
}

function say(words, kind = "") {
  const notice = $("#notice");
  notice.textContent = words;
  notice.className = `notice ${kind}`;
  notice.hidden = !words;
}

// Getting items.

function restock() {
  fetching ??= stock().finally(() => (fetching = null));
  return fetching;
}

const held = () => [...shelf, ...(now ? [now.item] : [])].map((item) => item.query);

async function stock() {
  const here = held();
  if (here.length >= AHEAD) return;
  const waiting = (await keep.waiting()).map((entry) => entry.query); // done with here, which is not known there yet
  const { status, ok, told } = await send(`${home}/next?count=${AHEAD - here.length}&hold=${[...here, ...waiting].join(",")}`);
  trouble = ok || !status || status >= 500 ? "" : told.detail;
  if (status === 401) session.open();
  if (!ok) return;
  const known = new Set([...held(), ...waiting, ...(await keep.waiting()).map((entry) => entry.query)]);
  others = told.others;
  shelf.push(...told.items.filter((item) => !known.has(item.query)));
  document.body.classList.toggle("screening", told.screening);
  $("#quick-label").hidden = !told.quick;
  if (told.code) $("#code").replaceChildren("Done. Your code: ", el("code", {}, told.code));
  $("#code").hidden = !told.code;
}

// What changes the screen happens one after the other.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.then(work, work));

// The next item, at once if it is here, and more behind it.
async function advance() {
  if (!now && shelf.length) await show(shelf.shift());
  more();
}

const more = () => restock().then(() => inTurn(() => now ?? show(shelf.shift() ?? null)));

// Putting one on the screen.

async function show(item) {
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
      el("h2", {}, trouble || (offline ? "You are offline" : "That is all for now")),
      trouble ? "" : el("p", {}, offline ? "What you said is safe here. New items come when the connection is back."
        : others ? "Other people are at the rest. What they leave comes to you within 15 minutes, by itself." : "New items appear here by themselves."));
    return;
  }
  const kept = await keep.draft(item.query);
  const draft = kept && (!item.before || kept.supersedes === item.before.id) ? kept : blank(item);
  const kind = KINDS[item.kind] ?? form;
  active = draft.seconds * 1000;
  const last = item.prompt.length - 1;
  views = [];
  const turns = item.prompt.map((turn) => view(el("div", { class: `turn ${turn.role}`, "data-role": turn.role, dir: "auto" }), turn));
  if (last > 0) $("#prompt").append(el("details", { class: "earlier" }, el("summary", {}, `${last} earlier ${last > 1 ? "turns" : "turn"}`), ...turns.slice(0, -1)));
  $("#prompt").append(turns[last]);
  const many = item.kind === "ranking";
  $("#items").className = `n${Math.min(item.items.length, 9)}`;
  $("#items").append(...item.items.map((one, i) => {
    const text = el("div", { class: "text", lang: "", dir: "auto" });
    const name = item.items.length === 1 ? "Answer" : many ? `Answer ${i + 1}` : letter(i);
    if (kind.raw) source(text, one.text, name);
    else view(text, one);
    return el("article", { class: "item", "aria-label": name, "data-item": one.id }, el("h2", {}, name, el("span", { class: "place" })), text);
  }));
  $("#instruction").textContent = item.instruction;
  const control = kind.make(item, draft.answer, (chosen) => change(chosen));
  now = { item, draft, control };
  listenLater();
  $("#control").replaceChildren(control.node);
  $("#note").value = draft.note;
  showFlags();
  offer();
  main.scrollTop = 0;
  $("#help-keys").replaceChildren(el("p", {}, kind.keys), el("p", {}, "Enter: submit. S: skip. U: change your last answer, or have back what you skipped. V: texts as they were written. E: mend the better one. W: say why. G: guidelines. F, then 1, 2, …: the first flag, the second, … Ctrl+Enter submits while you write."));
  const text = $("#control textarea");
  if (text && !matchMedia("(pointer: coarse)").matches) text.focus();
  else main.focus({ preventScroll: true });
  if (item.before) say(`A reviewer sent this back: ${item.remark || "please look again"}. Your answer stands below; what you submit replaces it.`);
}

// What an answer begins with: nothing, or what this person said before a reviewer sent it back.
function blank({ query, before }) {
  const fresh = { query, answer: {}, flags: [], note: "", seconds: 0, supersedes: "", returned: "" };
  return before ? { ...fresh, answer: structuredClone(before.answer), flags: before.flags, note: before.note, supersedes: before.id } : fresh;
}

// Nothing is submitted in the first moment of a new item.
let listening = 0;
function listenLater() {
  deaf = true;
  $("#controls").dataset.deaf = "";
  clearTimeout(listening);
  listening = setTimeout(() => {
    deaf = false;
    delete $("#controls").dataset.deaf;
  }, DEAF);
}

// A text as Markdown, or as it was written.
function view(node, { html, text }) {
  views.push({ node, html, text });
  return refill(views.at(-1));
}

function refill({ node, html, text }) {
  const written = $("#source").getAttribute("aria-pressed") === "true";
  node.classList.toggle("written", written);
  if (written) node.textContent = text;
  else fill(node, html);
  return node;
}

function toggleSource() {
  const written = $("#source").getAttribute("aria-pressed") !== "true";
  $("#source").setAttribute("aria-pressed", String(written));
  views.forEach(refill);
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

// An answer that was sent back is ready once something of it was changed: it stands as it is if it is skipped.
const ready = () => now.control.ready() && (!now.item.before || Boolean(now.draft.touched));

function offer() {
  $("#submit").disabled = !ready();
  $("#edit").hidden = !now.control.better();
}

// An answer as it was written, in which a passage can be marked by mouse, finger or keys: text with a caret that takes
// no change.
function source(node, words, name) {
  node.textContent = words;
  for (const [attribute, value] of Object.entries({ contenteditable: "true", role: "textbox", "aria-readonly": "true", "aria-multiline": "true", "aria-label": `${name}, as it was written`, inputmode: "none", spellcheck: "false", tabindex: "0" }))
    node.setAttribute(attribute, value);
  node.addEventListener("beforeinput", (event) => event.preventDefault());
  node.addEventListener("input", () => node.textContent !== words && (node.textContent = words)); // input methods
}

// What is marked in an answer, and nothing around it.
document.addEventListener("selectionchange", () => {
  const selection = getSelection();
  if (!now?.control.mark || selection.isCollapsed || !selection.rangeCount) return;
  const range = selection.getRangeAt(0), clip = document.createRange();
  const text = [...document.querySelectorAll("#items .text")].find((node) => range.intersectsNode(node));
  if (!text) return;
  clip.selectNodeContents(text);
  if (range.compareBoundaryPoints(Range.START_TO_START, clip) > 0) clip.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, clip) < 0) clip.setEnd(range.endContainer, range.endOffset);
  if (clip.toString().trim()) now.control.mark(clip.toString());
});

// Every change is kept at once.

function change(chosen) {
  if (!now) return;
  now.touched = now.draft.touched = true;
  offer();
  stash();
  if (chosen && $("#quick").checked && !$("#quick-label").hidden && ready()) submit();
}

const drafted = () => ({ ...now.draft, seconds: active / 1000 });
const stash = () => now && keep.saveDraft(drafted());

function submit() {
  if (!now || deaf || !ready()) return;
  clock();
  const { item, draft, control } = now;
  performance.mark("submit");
  const said = {
    query: item.query, answer: control.body ? control.body() : draft.answer, shown: item.items.map((one) => one.id),
    seconds: Math.round(active) / 1000, note: $("#note").value, flags: draft.flags, supersedes: draft.supersedes,
  };
  now = null;
  return inTurn(async () => {
    const id = await keep.submit(said, item, draft.returned);
    if (!draft.supersedes) tally(1, 0);
    history = [...history.filter((one) => one.item.query !== item.query), { item, said: { ...said, id } }].slice(-50);
    say("");
    await advance();
    performance.measure("next", "submit");
  });
}

// Whether something stands in a field that was not there before.
const written = () => [...document.querySelectorAll("#control textarea, #control input:not([type=checkbox]), #note")]
  .some((field) => field.value.trim() && field.value !== field.defaultValue);

let skipping = null; // the item that the dialog asks about
function skip(event) {
  if (!now || event?.detail > 1) return; // the second click of a double click was not meant for this item
  if (!written()) return leave();
  skipping = now.item;
  $("#skipping").returnValue = "";
  $("#skipping").showModal();
}

function leave() {
  if (!now) return;
  clock();
  const { item } = now, draft = drafted();
  now = null;
  return inTurn(async () => {
    await keep.skip(item, draft);
    history = [...history, { item, skipped: true }].slice(-50);
    say("");
    await advance();
  });
}

// Bring the last answer back as it was, to be superseded, or the item that was skipped last with what was written of it.
const undo = () => inTurn(async () => {
  const last = history.pop() ?? (await latest());
  if (!last || (now && now.draft.supersedes && now.draft.supersedes === last.said?.id)) return;
  await setAside();
  if (last.skipped) {
    const entry = (await keep.skips()).find(({ item }) => item.query === last.item.query);
    if (entry) await keep.unskip(entry);
    shelf = shelf.filter((other) => other.query !== last.item.query);
    await show(last.item);
    return say("You skipped this one: here it is again, with what you had written.");
  }
  await reopen(last.item, last.said, last.said.id);
  say("Your last answer: change it and submit it again. The one before stays on record as replaced.");
});

// What was done last before the page was opened: ids are made here and in order, those of answers too.
async function latest() {
  const skipped = (await keep.skips()).at(-1);
  const waiting = (await keep.waiting()).filter(({ path, item }) => path === "feedback" && item).at(-1);
  if (waiting && !(skipped && skipped.id > waiting.id)) return { item: waiting.item, said: waiting.body };
  const { ok, told } = await send(`${home}/mine?count=1`);
  if (skipped && !(ok && told.length && told[0].id > skipped.id)) return { item: skipped.item, skipped: true };
  const item = ok && told.length ? await send(`${home}/item/${told[0].query}`) : null;
  if (item?.ok) return { item: item.told, said: told[0] };
  say(ok ? "There is nothing to undo." : "That needs a connection.");
  return null;
}

async function setAside() {
  if (!now) return;
  const { item } = now, draft = drafted();
  now = null; // nothing more can be said of it until it is shown again
  shelf.unshift(item);
  await keep.saveDraft(draft);
}

async function reopen(item, said, supersedes, returned = "") {
  shelf = shelf.filter((other) => other.query !== item.query);
  const draft = await keep.draft(item.query); // it was reopened before, and changed
  if (draft?.supersedes !== supersedes || draft.returned !== returned)
    await keep.saveDraft({ query: item.query, answer: structuredClone(said.answer), flags: said.flags, note: said.note, seconds: 0, supersedes, returned });
  await show(item);
}

// An answer that the server would not take: it comes back as it was, and stays until it is submitted or skipped.
keep.addEventListener("returned", ({ detail }) => inTurn(() => giveBack(detail)));

async function giveBack({ id, item, body, why, before }) {
  if ($("#skipping").open) $("#skipping").close();
  await setAside();
  const draft = await keep.draft(item.query); // it was being mended when the page was left
  if (draft?.returned === id) {
    shelf = shelf.filter((other) => other.query !== item.query);
    await show(item);
  } else await reopen(item, body, before || body.supersedes, id);
  say(before ? "You answered this in another tab. Submit it to replace that answer, or skip it." : `Not taken: ${why}. Your answer stands below; change it, or copy it out.`, "alert");
  const copy = el("button", { type: "button", class: "quiet", onclick: () => navigator.clipboard.writeText(JSON.stringify(body.answer)) }, "copy");
  $("#notice").append(" ", copy);
}

keep.addEventListener("kept", ({ detail: { told } }) => {
  if (told.right === null || told.right === undefined) return;
  say(`${told.right ? "✓ Right." : "✗ Not quite."} ${told.explanation}`, told.right ? "good" : "alert");
});

// Correct the answer that was just preferred.
async function edit() {
  const better = now?.control.better();
  if (!better || deaf) return;
  const { item } = now;
  const { ok, told } = await send(`${home}/correct`, { query: item.query, item: better });
  if (!ok) return say("That needs a connection.");
  shelf.unshift(told);
  if (now?.item === item) await submit();
}

// Keys; none of them works while somebody writes, but Escape and Ctrl+Enter.

let flagging = false;

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  // A key that is held down repeats itself: it moves the page and writes letters, and says nothing.
  const presses = event.key === "Enter" || (event.key === " " ? event.target.closest?.("button, summary") : event.key.length === 1);
  if (event.repeat && (writing(event) ? event.key === "Enter" && (event.ctrlKey || event.metaKey) : presses)) return event.preventDefault();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.preventDefault(), submit();
  if (writing(event)) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "note")) event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = keyOf(event);
  const always = { u: undo, g: () => $("#guidelines").showModal(), "?": () => $("#help").showModal(), v: toggleSource };
  if (!now) return always[key] ? (event.preventDefault(), always[key]()) : undefined;
  if (flagging) {
    flagging = false;
    const name = $("#flags").children[Number(key) - 1];
    say("");
    if (name) return event.preventDefault(), name.click();
  }
  if (now.control.key(key)) return event.preventDefault();
  const button = event.target.closest?.("button:not([aria-pressed=true]), a, summary"); // Enter presses it
  const actions = { ...always, Enter: button ? null : submit, s: () => deaf || skip(), w: () => $("#note").focus(), e: edit, f: () => { flagging = true; say("Flag: press 1 for the first, 2 for the second, and so on."); } };
  if (actions[key]) event.preventDefault(), actions[key]();
});

$("#submit").addEventListener("click", submit);
$("#skip").addEventListener("click", skip);
$("#skipping").addEventListener("close", ({ target }) => target.returnValue === "skip" && now?.item === skipping && leave());
$("#source").addEventListener("click", toggleSource);
$("#undo").addEventListener("click", undo);
$("#edit").addEventListener("click", edit);
$("#guide").addEventListener("click", () => $("#guidelines").showModal());
$("#help-button").addEventListener("click", () => $("#help").showModal());
$("#note").addEventListener("input", () => {
  now.draft.note = $("#note").value;
  change(false);
});

// While the page is open: signs of life, new items when there were none, and comparing notes after a time offline.

setInterval(async () => {
  const queries = held();
  if (!queries.length || document.hidden) return;
  const { status } = await send(`${home}/heartbeat`, { queries });
  if (status === 204 && keep.apart) keep.reconcile();
  keep.apart ||= !status;
}, BEAT);
setInterval(() => {
  if (!now && !document.hidden) more();
}, 5000);
addEventListener("online", async () => {
  await keep.reconcile();
  more();
});
addEventListener("pagehide", () => now?.touched && keep.lastWords(drafted()));

await keep.ready.catch((error) => {
  say(error.name === "Blocked" ? error.message : "This browser keeps nothing, so that answers could be lost: leave the private window, or allow this site to store data.", "alert");
  throw error;
});
tally(0, 0);
for (const back of await keep.returned()) if (back.item) await inTurn(() => giveBack(back));
await more();
keep.reconcile();
document.body.dataset.ready = "yes";
