// The labelling page: a queue of tasks, one on the screen; its judgement is stored before the next task appears.
import { help as clipHelp, load, makePlayer } from "./clip.js";
import { base, capitalise, el, fill, isTyping, keyOf, letter, nounOf } from "./dom.js";
import { Outbox, send } from "./outbox.js";
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
const PREFETCH = 3; // tasks: one on the screen and two behind it
const HEARTBEAT = 60_000; // milliseconds between renewals of assignments, which last fifteen minutes
const SUBMIT_DELAY = 400; // milliseconds after a new task in which a click or key is taken as meant for the last one
const IDLE_TIMEOUT = 60_000; // milliseconds without input after which the time no longer counts as active

const $ = (selector) => document.querySelector(selector);
const main = $("main");
const { run, user } = main.dataset;
const api = `${base}/r/${encodeURIComponent(run)}/api`;
const outbox = new Outbox(api, user);
const session = signIn(user, async () => {
  await outbox.flush(true);
  loadMore();
});

let queue = []; // tasks that are loaded already
let current = null; // { item, draft, control, player }: the task on the screen
let history = []; // tasks judged or skipped, the newest last
let activeTime = 0; // milliseconds at this task
let lastInput = performance.now();
let fetching = null;
let error = ""; // why no tasks came
let othersWorking = false; // other labellers hold all remaining tasks
let isDelayed = false; // for a moment after a new task
let textViews = []; // texts on the screen: { node, html, text }

// The clock counts only while the labeller is active.

let lastTick = performance.now();
function updateClock() {
  const previousTick = lastTick;
  lastTick = performance.now();
  if (document.hidden || lastTick - lastInput > IDLE_TIMEOUT || !current) return;
  activeTime += lastTick - previousTick;
  addToTally(0, lastTick - previousTick);
}
setInterval(updateClock, 1000);
["pointerdown", "pointermove", "keydown", "wheel", "touchstart"].forEach((name) =>
  addEventListener(name, () => (lastInput = performance.now()), { passive: true }));

// The status line.

const STATUS_TEXT = {
  idle: () => "ready",
  saving: () => "saving…",
  saved: (state) => `saved ${state.at}`,
  offline: (state) => `offline: ${state.waiting} waiting, keep working${state.error ? ` (${state.error})` : ""}`,
  "sign in": (state) => `sign in again: ${state.waiting} waiting`,
  rejected: () => "not accepted: see below",
};

outbox.addEventListener("state", ({ detail }) => {
  const state = $("#state");
  state.dataset.state = detail.kind;
  state.querySelector(".status-text").textContent = STATUS_TEXT[detail.kind](detail);
  if (detail.kind === "sign in") session.open();
  if (detail.kind === "saved") session.close();
});

// Count the judgements and the active time of today in this browser.
function addToTally(judgements, milliseconds) {
  const name = `assent tally ${run} ${user}`, day = new Date().toDateString();
  const saved = JSON.parse(localStorage.getItem(name) ?? "{}"); // an older version wrote `answered` and `spent`
  const before = saved.day === day ? { judgements: saved.judgements ?? saved.answered ?? 0, active: saved.active ?? saved.spent ?? 0 } : { judgements: 0, active: 0 };
  const tally = { day, judgements: before.judgements + judgements, active: before.active + milliseconds };
  if (judgements || milliseconds) localStorage.setItem(name, JSON.stringify(tally));
  $("#tally").textContent = `${tally.judgements} today · ${Math.floor(tally.active / 60_000)} min active`;
}

function showNotice(text, kind = "") {
  const notice = $("#notice");
  notice.textContent = text;
  notice.className = `notice ${kind}`;
  notice.hidden = !text;
}

// Loading tasks.

function refill() {
  fetching ??= fetchTasks().finally(() => (fetching = null));
  return fetching;
}

const heldTasks = () => [...queue, ...(current ? [current.item] : [])].map((item) => item.task);

async function fetchTasks() {
  const held = heldTasks();
  if (held.length >= PREFETCH) return;
  const waiting = (await outbox.waiting()).map((entry) => entry.task); // judged here, but the server may not know it yet
  const { status, ok, data } = await send(`${api}/tasks/next?count=${PREFETCH - held.length}&hold=${[...held, ...waiting].join(",")}`);
  error = ok || !status || status >= 500 ? "" : data.detail;
  if (status === 401) session.open();
  if (!ok) return;
  const known = new Set([...heldTasks(), ...waiting, ...(await outbox.waiting()).map((entry) => entry.task)]);
  othersWorking = data.others_working;
  const added = data.tasks.filter((item) => !known.has(item.task));
  queue.push(...added);
  added.filter((item) => item.is_clips).flatMap((item) => item.items).forEach(({ id }) => load(id).catch(() => null)); // the browser keeps them
  document.body.classList.toggle("screening", data.screening);
  $("#quick-label").hidden = !data.quick_submit;
  if (data.completion_code) $("#code").replaceChildren("Done. Your completion code: ", el("code", {}, data.completion_code));
  $("#code").hidden = !data.completion_code;
}

// Changes of the screen run one after the other.
let lastChange = Promise.resolve();
const inSequence = (work) => (lastChange = lastChange.then(work, work));

// Show the next task, at once if it is loaded, and load more.
async function advance() {
  if (!current && queue.length) await show(queue.shift());
  loadMore();
}

const loadMore = () => refill().then(() => inSequence(() => current ?? show(queue.shift() ?? null)));

// Showing a task.

async function show(item) {
  updateClock();
  current = null;
  activeTime = 0;
  lastInput = performance.now();
  $("#controls").hidden = !item;
  $("#empty").hidden = Boolean(item);
  $("#prompt").replaceChildren();
  $("#items").replaceChildren();
  $("#player").replaceChildren();
  if (!item) return showEmpty();
  const saved = await outbox.readDraft(item.task);
  const draft = saved && (!item.previous || saved.supersedes === item.previous.id) ? saved : newDraft(item);
  const kind = KINDS[item.kind] ?? form;
  activeTime = draft.duration * 1000;
  textViews = [];
  showPrompt(item.prompt);
  showItems(item, kind);
  const player = item.is_clips ? makePlayer(document.querySelectorAll("#items canvas")) : null;
  if (player) $("#player").append(player.node);
  $("#instruction").textContent = item.instruction;
  const control = kind.makeControl(item, draft.judgement, (isChosen) => onChange(isChosen));
  current = { item, draft, control, player };
  delaySubmission();
  $("#control").replaceChildren(control.node);
  $("#comment").value = draft.comment;
  showFlags();
  updateButtons();
  main.scrollTop = 0;
  $("#help-keys").replaceChildren(el("p", {}, (item.is_clips && kind.helpOnClips) || kind.help), el("p", {}, item.is_clips ? clipHelp : "V: show the source text. E: edit the better response."), el("p", {}, "Enter: submit. S: skip. U: undo your last judgement or skip. W: write a comment. G: guidelines. F, then 1, 2, …: set the first flag, the second, … Ctrl+Enter submits while you write."));
  const text = $("#control textarea");
  if (text && !matchMedia("(pointer: coarse)").matches) text.focus();
  else main.focus({ preventScroll: true });
  if (item.previous) showNotice(`A reviewer sent this back: ${item.remark || "please check it again"}. Your judgement is shown below; the next one you submit replaces it.`);
}

function showEmpty() {
  const isOffline = !navigator.onLine;
  const reason = isOffline ? "Your work is saved in this browser. New tasks load when the connection is back."
    : othersWorking ? "Other labellers hold the remaining tasks. Tasks that they leave appear here within 15 minutes." : "New tasks appear here automatically.";
  $("#empty").replaceChildren(
    el("h2", {}, error || (isOffline ? "You are offline" : "No tasks for now")),
    error ? "" : el("p", {}, reason));
}

function showPrompt(messages) {
  const last = messages.length - 1;
  const turns = messages.map((message) => addTextView(el("div", { class: `turn ${message.role}`, "data-role": message.role, dir: "auto" }), message));
  if (last < 0) return;
  if (last > 0) $("#prompt").append(el("details", { class: "earlier" }, el("summary", {}, `${last} earlier ${last > 1 ? "turns" : "turn"}`), ...turns.slice(0, -1)));
  $("#prompt").append(turns[last]);
}

function showItems(item, kind) {
  const noun = capitalise(nounOf(item));
  $("#items").setAttribute("aria-label", `${noun}s`);
  $("#items").className = `n${Math.min(item.items.length, 9)}${item.is_clips ? " clips" : ""}`;
  $("#items").append(...item.items.map((response, i) => {
    const text = el("div", { class: "text", lang: "", dir: "auto" });
    const name = item.items.length === 1 ? noun : item.kind === "ranking" ? `${noun} ${i + 1}` : item.is_clips ? `Clip ${letter(i)}` : letter(i);
    if (item.is_clips) fill(text, response.html);
    else if (kind.showsSource) showSource(text, response.text, name);
    else addTextView(text, response);
    return el("article", { class: "item", "aria-label": name, "data-item": response.id }, el("h2", {}, name, el("span", { class: "place" })), text);
  }));
}

// The first draft of a task: empty, or the judgement that a reviewer sent back.
function newDraft({ task, previous }) {
  const draft = { task, judgement: {}, flags: [], comment: "", duration: 0, supersedes: "", returned: "" };
  return previous ? { ...draft, judgement: structuredClone(previous.judgement), flags: previous.flags, comment: previous.comment, supersedes: previous.id } : draft;
}

// Nothing is submitted in the first moment of a new task.
let delayTimer = 0;
function delaySubmission() {
  isDelayed = true;
  $("#controls").dataset.delayed = "";
  clearTimeout(delayTimer);
  delayTimer = setTimeout(() => {
    isDelayed = false;
    delete $("#controls").dataset.delayed;
  }, SUBMIT_DELAY);
}

// Show a text as HTML, or as its source if the labeller chose that.
function addTextView(node, { html, text }) {
  textViews.push({ node, html, text });
  return renderTextView(textViews.at(-1));
}

function renderTextView({ node, html, text }) {
  const isSource = $("#source").getAttribute("aria-pressed") === "true";
  node.classList.toggle("source", isSource);
  if (isSource) node.textContent = text;
  else fill(node, html);
  return node;
}

function toggleSource() {
  const isSource = $("#source").getAttribute("aria-pressed") !== "true";
  $("#source").setAttribute("aria-pressed", String(isSource));
  textViews.forEach(renderTextView);
}

function showFlags() {
  const names = JSON.parse(main.dataset.flags);
  $("#flags").replaceChildren(...names.map((name) => {
    const value = name.toLowerCase();
    return el("button", { type: "button", class: "flag", "aria-pressed": String(current.draft.flags.includes(value)), onclick: () => toggleFlag(value) }, name);
  }));
}

function toggleFlag(value) {
  const { flags } = current.draft;
  current.draft.flags = flags.includes(value) ? flags.filter((flag) => flag !== value) : [...flags, value];
  showFlags();
  onChange(false);
}

// A judgement that was sent back can be submitted only after a change; to keep it as it is, the labeller skips the task.
// Nor can one about a clip that cannot be seen.
const isReady = () => current.control.isReady() && !current.player?.isBroken() && (!current.item.previous || Boolean(current.draft.touched));

function updateButtons() {
  $("#submit").disabled = !isReady();
  $("#source").hidden = current.item.is_clips;
  $("#edit").hidden = current.item.is_clips || !current.control.preferred();
}

// Show the source of a response so that a passage can be selected by mouse, finger or keys: text with a caret that
// accepts no change.
function showSource(node, text, name) {
  node.textContent = text;
  for (const [attribute, value] of Object.entries({ contenteditable: "true", role: "textbox", "aria-readonly": "true", "aria-multiline": "true", "aria-label": `${name}, source text`, inputmode: "none", spellcheck: "false", tabindex: "0" }))
    node.setAttribute(attribute, value);
  node.addEventListener("beforeinput", (event) => event.preventDefault());
  node.addEventListener("input", () => node.textContent !== text && (node.textContent = text)); // input methods
}

// Quote the text that is selected in a response, without what is selected outside it.
document.addEventListener("selectionchange", () => {
  const selection = getSelection();
  if (!current?.control.quote || selection.isCollapsed || !selection.rangeCount) return;
  const range = selection.getRangeAt(0), clip = document.createRange();
  const text = [...document.querySelectorAll("#items .text")].find((node) => range.intersectsNode(node));
  if (!text) return;
  clip.selectNodeContents(text);
  if (range.compareBoundaryPoints(Range.START_TO_START, clip) > 0) clip.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, clip) < 0) clip.setEnd(range.endContainer, range.endOffset);
  if (clip.toString().trim()) current.control.quote(clip.toString());
});

// Every change is saved at once. `isChosen`: the change completes the judgement, so one key may submit it.

function onChange(isChosen) {
  if (!current) return;
  current.touched = current.draft.touched = true;
  updateButtons();
  saveDraft();
  if (isChosen && $("#quick").checked && !$("#quick-label").hidden && isReady()) submit();
}

const draftWithDuration = () => ({ ...current.draft, duration: activeTime / 1000 });
const saveDraft = () => current && outbox.saveDraft(draftWithDuration());

function submit() {
  if (!current || isDelayed || !isReady()) return;
  updateClock();
  const { item, draft, control } = current;
  performance.mark("submit");
  const body = {
    task: item.task, judgement: control.toJudgement ? control.toJudgement() : draft.judgement, display_order: item.items.map((response) => response.id),
    duration: Math.round(activeTime) / 1000, comment: $("#comment").value, flags: draft.flags, supersedes: draft.supersedes,
  };
  current = null;
  return inSequence(async () => {
    const id = await outbox.submit(body, item, draft.returned);
    if (!draft.supersedes) addToTally(1, 0);
    history = [...history.filter((entry) => entry.item.task !== item.task), { item, body: { ...body, id } }].slice(-50);
    showNotice("");
    await advance();
    performance.measure("next", "submit");
  });
}

// Does a field hold text that was not there at first?
const hasText = () => [...document.querySelectorAll("#control textarea, #control input:not([type=checkbox]), #comment")]
  .some((field) => field.value.trim() && field.value !== field.defaultValue);

let skipCandidate = null; // the task that the dialog asks about
function skip(event) {
  if (!current || event?.detail > 1) return; // the second click of a double click was not meant for this task
  if (!hasText()) return confirmSkip();
  skipCandidate = current.item;
  $("#skipping").returnValue = "";
  $("#skipping").showModal();
}

function confirmSkip() {
  if (!current) return;
  updateClock();
  const { item } = current, draft = draftWithDuration();
  current = null;
  return inSequence(async () => {
    await outbox.skip(item, draft);
    history = [...history, { item, isSkipped: true }].slice(-50);
    showNotice("");
    await advance();
  });
}

// Reopen the last judgement, to be superseded, or the task that was skipped last with its draft.
const undo = () => inSequence(async () => {
  const last = history.pop() ?? (await readLast());
  if (!last || (current && current.draft.supersedes && current.draft.supersedes === last.body?.id)) return;
  await setAside();
  if (last.isSkipped) {
    const entry = (await outbox.skipped()).find(({ item }) => item.task === last.item.task);
    if (entry) await outbox.unskip(entry);
    queue = queue.filter((item) => item.task !== last.item.task);
    await show(last.item);
    return showNotice("You skipped this task. It is back, with your draft.");
  }
  await reopen(last.item, last.body, last.body.id);
  showNotice("This is your last judgement. Change it and submit it again; the earlier one stays on record as replaced.");
});

// The last judgement or skip from before the page was opened. Ids are made here and in order, those of judgements too.
async function readLast() {
  const skipped = (await outbox.skipped()).at(-1);
  const waiting = (await outbox.waiting()).filter(({ path, item }) => path === "judgements" && item).at(-1);
  if (waiting && !(skipped && skipped.id > waiting.id)) return { item: waiting.item, body: waiting.body };
  const { ok, data } = await send(`${api}/judgements/mine?count=1`);
  if (skipped && !(ok && data.length && data[0].id > skipped.id)) return { item: skipped.item, isSkipped: true };
  const reply = ok && data.length ? await send(`${api}/tasks/${data[0].task}`) : null;
  if (reply?.ok) return { item: reply.data, body: data[0] };
  showNotice(ok ? "There is nothing to undo." : "Undo needs a connection.");
  return null;
}

async function setAside() {
  if (!current) return;
  const { item } = current, draft = draftWithDuration();
  current = null; // the task accepts no input until it is shown again
  queue.unshift(item);
  await outbox.saveDraft(draft);
}

async function reopen(item, body, supersedes, returned = "") {
  queue = queue.filter((other) => other.task !== item.task);
  const draft = await outbox.readDraft(item.task); // it was reopened before, and changed
  if (draft?.supersedes !== supersedes || draft.returned !== returned)
    await outbox.saveDraft({ task: item.task, judgement: structuredClone(body.judgement), flags: body.flags, comment: body.comment, duration: 0, supersedes, returned });
  await show(item);
}

// A judgement that the server refused is shown again, and kept until it is submitted or its task skipped.
outbox.addEventListener("returned", ({ detail }) => inSequence(() => showReturned(detail)));

async function showReturned({ id, item, body, error: reason, existing_id: existingId }) {
  if ($("#skipping").open) $("#skipping").close();
  await setAside();
  const draft = await outbox.readDraft(item.task); // it was being changed when the page was left
  if (draft?.returned === id) {
    queue = queue.filter((other) => other.task !== item.task);
    await show(item);
  } else await reopen(item, body, existingId || body.supersedes, id);
  showNotice(existingId ? "You judged this task in another tab. Submit to replace that judgement, or skip the task." : `Not accepted: ${reason}. Your judgement is shown below; change it, or copy it.`, "alert");
  const copy = el("button", { type: "button", class: "quiet", onclick: () => navigator.clipboard.writeText(JSON.stringify(body.judgement)) }, "Copy");
  $("#notice").append(" ", copy);
}

outbox.addEventListener("stored", ({ detail: { result } }) => {
  if (result.correct === null || result.correct === undefined) return;
  showNotice(`${result.correct ? "✓ Correct." : "✗ Not correct."} ${result.explanation}`, result.correct ? "good" : "alert");
});

// Open a correction of the response that was just preferred.
async function edit() {
  const preferred = current?.control.preferred();
  if (!preferred || current.item.is_clips || isDelayed) return;
  const { item } = current;
  const { ok, data } = await send(`${api}/corrections`, { task: item.task, item: preferred });
  if (!ok) return showNotice("Editing needs a connection.");
  queue.unshift(data);
  if (current?.item === item) await submit();
}

// Keyboard shortcuts. While the labeller types only Escape and Ctrl+Enter are shortcuts.

let awaitsFlag = false;

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  // A held key repeats itself: it scrolls and types letters, but submits and chooses nothing.
  const isShortcut = event.key === "Enter" || (event.key === " " ? event.target.closest?.("button, summary") : event.key.length === 1);
  if (event.repeat && (isTyping(event) ? event.key === "Enter" && (event.ctrlKey || event.metaKey) : isShortcut)) return event.preventDefault();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.preventDefault(), submit();
  if (isTyping(event)) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "comment")) event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = keyOf(event);
  const globalActions = { u: undo, g: () => $("#guidelines").showModal(), "?": () => $("#help").showModal(), v: toggleSource };
  if (!current) return globalActions[key] ? (event.preventDefault(), globalActions[key]()) : undefined;
  if (awaitsFlag) {
    awaitsFlag = false;
    const flag = $("#flags").children[Number(key) - 1];
    showNotice("");
    if (flag) return event.preventDefault(), flag.click();
  }
  if (event.target.type === "range" && key.startsWith("Arrow")) return; // they move the slider
  const isPress = key === " " && event.target.closest?.("button, summary"); // Space presses it
  if ((!isPress && current.player?.handleKey(key)) || current.control.handleKey(key)) return event.preventDefault();
  const button = event.target.closest?.("button:not([aria-pressed=true]), a, summary"); // Enter presses it
  const actions = { ...globalActions, Enter: button ? null : submit, s: () => isDelayed || skip(), w: () => $("#comment").focus(), e: edit, f: () => { awaitsFlag = true; showNotice("Flag: press 1 for the first, 2 for the second, and so on."); } };
  if (actions[key]) event.preventDefault(), actions[key]();
});

$("#submit").addEventListener("click", submit);
$("#skip").addEventListener("click", skip);
$("#skipping").addEventListener("close", ({ target }) => target.returnValue === "skip" && current?.item === skipCandidate && confirmSkip());
$("#source").addEventListener("click", toggleSource);
$("#undo").addEventListener("click", undo);
$("#edit").addEventListener("click", edit);
$("#guidelines-button").addEventListener("click", () => $("#guidelines").showModal());
$("#help-button").addEventListener("click", () => $("#help").showModal());
$("#comment").addEventListener("input", () => {
  current.draft.comment = $("#comment").value;
  onChange(false);
});

// While the page is open: heartbeats, new tasks when there were none, and reconciliation after a time offline.

setInterval(async () => {
  const tasks = heldTasks();
  if (!tasks.length || document.hidden) return;
  const { status } = await send(`${api}/heartbeat`, { tasks });
  if (status === 204 && outbox.isUnreconciled) outbox.reconcile();
  outbox.isUnreconciled ||= !status;
}, HEARTBEAT);
setInterval(() => {
  if (!current && !document.hidden) loadMore();
}, 5000);
addEventListener("online", async () => {
  await outbox.reconcile();
  loadMore();
});
addEventListener("pagehide", () => current?.touched && outbox.saveOnUnload(draftWithDuration()));

await outbox.ready.catch((failure) => {
  showNotice(failure.name === "Blocked" ? failure.message : "This browser cannot store data, so judgements could be lost. Leave the private window, or allow this site to store data.", "alert");
  throw failure;
});
addToTally(0, 0);
for (const entry of await outbox.returned()) if (entry.item) await inSequence(() => showReturned(entry));
await loadMore();
outbox.reconcile();
document.body.dataset.ready = "yes";
