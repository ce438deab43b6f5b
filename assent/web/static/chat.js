// Talk to a model; thumbs, or a choice between two answers, go through the same outbox as the label page's answers.
import { base, el, fill, letter } from "./dom.js";
import { Keep } from "./keep.js";
import { signIn } from "./signin.js";

const $ = (selector) => document.querySelector(selector);
const { run, person } = $("main").dataset;
const home = `${base}/r/${encodeURIComponent(run)}/api`;
const keep = new Keep(home, person);
const session = signIn(person, () => keep.drain(true));
const shelf = `assent chat ${run} ${person}`;
// Turns of the conversation; those of the model carry what may be said of them, and what was.
let messages = JSON.parse(sessionStorage.getItem(shelf) ?? "[]");
const NOTHING = "(nothing)"; // what stands for an answer without a word
let stop = null; // while an answer comes
let undecided = null; // two answers, of which none was chosen yet

keep.addEventListener("state", ({ detail }) => {
  $("#state").dataset.state = detail.kind;
  const words = { idle: "ready", saving: "saving…", saved: `saved ${detail.at}`, offline: `offline: ${detail.waiting} waiting`, "sign in": "sign in again", rejected: `not taken: ${detail.why}` };
  $("#state .words").textContent = words[detail.kind];
  if (detail.kind === "sign in") session.open();
  if (detail.kind === "saved") session.close();
});

function say(words) {
  $("#notice").textContent = words;
  $("#notice").hidden = !words;
}

const remember = () => sessionStorage.setItem(shelf, JSON.stringify(messages));

function bubble(role, text) {
  const node = el("article", { class: `bubble ${role}`, "aria-label": role === "user" ? "You" : "The model" }, el("div", { class: "text", lang: "", dir: "auto" }, text || NOTHING));
  $("#talk").append(node);
  node.scrollIntoView({ block: "end" });
  return node;
}

function judge(done, answer, supersedes = "") {
  return keep.submit({ query: done.query, answer, shown: done.items.map((one) => one.id), seconds: 0, note: "", flags: [], supersedes });
}

// Thumbs under an answer; `turn` remembers the last verdict, which the next one supersedes.
function thumbs(node, turn) {
  const { done } = turn;
  const buttons = [["▲ good", "Good answer", true], ["▼ bad", "Bad answer", false]].map(([sign, words, approved]) =>
    el("button", { type: "button", class: "quiet", title: words, "aria-label": words, "aria-pressed": String(turn.approved === approved), onclick: async ({ currentTarget }) => {
      buttons.forEach((button) => (button.disabled = true)); // the next verdict supersedes this one
      turn.given = await judge(done, { approved }, turn.given);
      turn.approved = approved;
      remember();
      for (const button of buttons) {
        button.disabled = false;
        button.setAttribute("aria-pressed", String(button === currentTarget));
      }
    } }, sign));
  node.append(el("div", { class: "thumbs" }, ...buttons));
}

function settle(content, done = null) {
  const turn = { role: "assistant", content, done, given: "" };
  messages.push(turn);
  undecided = null;
  remember();
  return turn;
}

async function ask(words) {
  const two = $("#two").checked;
  messages.push({ role: "user", content: words });
  bubble("user", words);
  const row = el("div", { class: two ? "pair" : "single" });
  $("#talk").append(row);
  const nodes = Array.from({ length: two ? 2 : 1 }, (_, i) =>
    el("article", { class: "bubble assistant", "aria-label": two ? `Answer ${letter(i)}` : "The model", "aria-busy": "true" }, two ? el("h2", {}, letter(i)) : null, el("div", { class: "text", lang: "", dir: "auto" }, "…")));
  row.append(...nodes);
  stop = new AbortController();
  $("#send").hidden = true;
  $("#stop").hidden = false;
  let done = null;
  try {
    const response = await fetch(`${home}/chat`, { method: "POST", signal: stop.signal, headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages: messages.map(({ role, content }) => ({ role, content })), policy: $("#policy")?.value ?? "", n: nodes.length }) });
    if (response.status === 401) session.open();
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? response.statusText);
    let rest = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      for (const line of lines.map((one) => JSON.parse(one))) {
        if (line.failed) throw new Error(line.failed);
        if (line.done) done = line;
        else nodes[line.row].querySelector(".text").textContent = line.text;
      }
      nodes[0].scrollIntoView({ block: "end" });
    }
    if (!done) throw new Error("the connection was lost");
  } catch (error) {
    // void, not a loss: the question comes back to be sent again
    row.remove();
    $("#talk").lastElementChild?.remove();
    messages.pop();
    $("#words").value = words;
    say(error.name === "AbortError" ? "Stopped; nothing was kept." : `No answer: ${error.message}. Send it again.`);
  }
  stop = null;
  $("#send").hidden = false;
  $("#stop").hidden = true;
  if (!done) return;
  say("");
  done.items.forEach((item, i) => fill(nodes[i].querySelector(".text"), item.html || NOTHING));
  nodes.slice(done.items.length).forEach((node) => node.remove()); // both said the same
  nodes.forEach((node) => node.setAttribute("aria-busy", "false"));
  if (done.items.length === 1) {
    thumbs(nodes[0], settle(done.items[0].text, done));
  } else choose(row, nodes, done);
  $("#words").focus();
}

function choose(row, nodes, done) {
  const pick = async (index, verdict) => {
    await judge(done, verdict ? { verdict } : { verdict: "better", preferred: done.items[index].id, strength: 2 });
    nodes.forEach((node, i) => node.classList.toggle("left", i !== index));
    row.querySelector(".choice").remove();
    settle(done.items[index].text);
    $("#words").focus();
  };
  undecided = () => pick(0, "cannot tell");
  row.append(el("div", { class: "choice actions", role: "group", "aria-label": "Which answer is better" },
    ...done.items.map((_, i) => el("button", { type: "button", onclick: () => pick(i) }, `${letter(i)} is better`)),
    el("button", { type: "button", onclick: () => pick(0, "tie") }, "Tie"),
    el("button", { type: "button", onclick: () => pick(0, "both bad") }, "Both bad")));
}

$("#say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = $("#words").value.trim();
  if (!words || stop) return;
  if (undecided) await undecided();
  $("#words").value = "";
  ask(words);
});
$("#words").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("#say").requestSubmit();
});
$("#stop").addEventListener("click", () => stop?.abort());
$("#anew").addEventListener("click", () => {
  stop?.abort();
  messages = [];
  undecided = null;
  remember();
  $("#talk").replaceChildren();
  $("#words").focus();
});

for (const turn of messages) {
  const node = bubble(turn.role, turn.content);
  if (!turn.done) continue;
  if (turn.done.items[0].html) fill(node.querySelector(".text"), turn.done.items[0].html);
  thumbs(node, turn);
}
if (messages.at(-1)?.role === "user") messages.pop();
await keep.ready.catch((error) => {
  say(error.message);
  throw error;
});
keep.drain(true);
document.body.dataset.ready = "yes";
