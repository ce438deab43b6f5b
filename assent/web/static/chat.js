// The chat page: approvals and comparisons of responses go through the same outbox as judgements of the labelling page.
import { base, el, fill, letter } from "./dom.js";
import { Outbox } from "./outbox.js";
import { signIn } from "./signin.js";

const $ = (selector) => document.querySelector(selector);
const { run, user } = $("main").dataset;
const api = `${base}/r/${encodeURIComponent(run)}/api`;
const outbox = new Outbox(api, user);
const session = signIn(user, () => outbox.flush(true));
const storageKey = `assent chat ${run} ${user}`;
const EMPTY = "(empty)"; // shown for a response without text
const STATUS_TEXT = {
  idle: () => "ready",
  saving: () => "saving…",
  saved: (state) => `saved ${state.at}`,
  offline: (state) => `offline: ${state.waiting} waiting`,
  "sign in": () => "sign in again",
  rejected: (state) => `not accepted: ${state.error}`,
};

// Turns of the conversation. A turn of the model holds the task of judging it, and the judgement.
// An older version stored `done` for `reply`, `query` for `task` and `given` for `judgement`.
let turns = JSON.parse(sessionStorage.getItem(storageKey) ?? "[]").map(({ done, given, ...turn }) =>
  done ? { ...turn, reply: { ...done, task: done.task ?? done.query }, judgement: given } : turn);
let abort = null; // the controller of the request, while a response streams
let finishChoice = null; // skips the comparison of two responses of which none was chosen yet

outbox.addEventListener("state", ({ detail }) => {
  $("#state").dataset.state = detail.kind;
  $("#state .status-text").textContent = STATUS_TEXT[detail.kind](detail);
  if (detail.kind === "sign in") session.open();
  if (detail.kind === "saved") session.close();
});

function showNotice(text) {
  $("#notice").textContent = text;
  $("#notice").hidden = !text;
}

const saveTurns = () => sessionStorage.setItem(storageKey, JSON.stringify(turns));

function addBubble(role, text) {
  const node = el("article", { class: `bubble ${role}`, "aria-label": role === "user" ? "You" : "The model" }, el("div", { class: "text", lang: "", dir: "auto" }, text || EMPTY));
  $("#conversation").append(node);
  node.scrollIntoView({ block: "end" });
  return node;
}

function submitJudgement(reply, judgement, supersedes = "") {
  return outbox.submit({ task: reply.task, judgement, display_order: reply.items.map((item) => item.id), duration: 0, comment: "", flags: [], supersedes });
}

// Add approval buttons to a response. The turn keeps the last judgement, which the next one supersedes.
function addApproval(node, turn) {
  const { reply } = turn;
  const choices = [["▲ good", "Good response", true], ["▼ bad", "Bad response", false]];
  const buttons = choices.map(([text, title, approved]) =>
    el("button", { type: "button", class: "quiet", title, "aria-label": title, "aria-pressed": String(turn.approved === approved), onclick: async ({ currentTarget }) => {
      buttons.forEach((button) => (button.disabled = true)); // until the id that the next judgement supersedes is known
      turn.judgement = await submitJudgement(reply, { approved }, turn.judgement);
      turn.approved = approved;
      saveTurns();
      for (const button of buttons) {
        button.disabled = false;
        button.setAttribute("aria-pressed", String(button === currentTarget));
      }
    } }, text));
  node.append(el("div", { class: "thumbs" }, ...buttons));
}

function addTurn(content, reply = null) {
  const turn = { role: "assistant", content, reply, judgement: "" };
  turns.push(turn);
  finishChoice = null;
  saveTurns();
  return turn;
}

async function sendMessage(message) {
  const isPair = $("#two").checked;
  turns.push({ role: "user", content: message });
  addBubble("user", message);
  const row = el("div", { class: isPair ? "pair" : "single" });
  $("#conversation").append(row);
  const nodes = Array.from({ length: isPair ? 2 : 1 }, (_, i) =>
    el("article", { class: "bubble assistant", "aria-label": isPair ? `Response ${letter(i)}` : "The model", "aria-busy": "true" }, isPair ? el("h2", {}, letter(i)) : null, el("div", { class: "text", lang: "", dir: "auto" }, "…")));
  row.append(...nodes);
  abort = new AbortController();
  $("#send").hidden = true;
  $("#stop").hidden = false;
  const reply = await streamReply(nodes).catch((error) => {
    // Nothing is stored: the message returns to its field, to be sent again.
    row.remove();
    $("#conversation").lastElementChild?.remove();
    turns.pop();
    $("#message").value = message;
    showNotice(error.name === "AbortError" ? "Stopped. Nothing was stored." : `No response: ${error.message}. Send the message again.`);
    return null;
  });
  abort = null;
  $("#send").hidden = false;
  $("#stop").hidden = true;
  if (!reply) return;
  showNotice("");
  reply.items.forEach((item, i) => fill(nodes[i].querySelector(".text"), item.html || EMPTY));
  nodes.slice(reply.items.length).forEach((node) => node.remove()); // both responses are the same
  nodes.forEach((node) => node.setAttribute("aria-busy", "false"));
  if (reply.items.length === 1) addApproval(nodes[0], addTurn(reply.items[0].text, reply));
  else addChoice(row, nodes, reply);
  $("#message").focus();
}

// Stream the responses into their nodes, and return the last line, which holds them whole.
async function streamReply(nodes) {
  const messages = turns.map(({ role, content }) => ({ role, content }));
  const response = await fetch(`${api}/chat`, { method: "POST", signal: abort.signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages, policy: $("#policy")?.value ?? "", n: nodes.length }) });
  if (response.status === 401) session.open();
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? response.statusText);
  let rest = "", reply = null;
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines.map((text) => JSON.parse(text))) {
      if (line.error) throw new Error(line.error);
      if (line.done) reply = line;
      else nodes[line.row].querySelector(".text").textContent = line.text;
    }
    nodes[0].scrollIntoView({ block: "end" });
  }
  if (!reply) throw new Error("the connection was lost");
  return reply;
}

function addChoice(row, nodes, reply) {
  const choose = async (index, verdict) => {
    await submitJudgement(reply, verdict ? { verdict } : { verdict: "better", preferred: reply.items[index].id, strength: 2 });
    nodes.forEach((node, i) => node.classList.toggle("rejected", i !== index));
    row.querySelector(".choice").remove();
    addTurn(reply.items[index].text);
    $("#message").focus();
  };
  finishChoice = () => choose(0, "cannot tell");
  row.append(el("div", { class: "choice actions", role: "group", "aria-label": "Which response is better" },
    ...reply.items.map((_, i) => el("button", { type: "button", onclick: () => choose(i) }, `${letter(i)} is better`)),
    el("button", { type: "button", onclick: () => choose(0, "tie") }, "Tie"),
    el("button", { type: "button", onclick: () => choose(0, "both bad") }, "Both bad")));
}

$("#message-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = $("#message").value.trim();
  if (!message || abort) return;
  if (finishChoice) await finishChoice();
  $("#message").value = "";
  sendMessage(message);
});
$("#message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("#message-form").requestSubmit();
});
$("#stop").addEventListener("click", () => abort?.abort());
$("#restart").addEventListener("click", () => {
  abort?.abort();
  turns = [];
  finishChoice = null;
  saveTurns();
  $("#conversation").replaceChildren();
  $("#message").focus();
});

for (const turn of turns) {
  const node = addBubble(turn.role, turn.content);
  if (!turn.reply) continue;
  if (turn.reply.items[0].html) fill(node.querySelector(".text"), turn.reply.items[0].html);
  addApproval(node, turn);
}
if (turns.at(-1)?.role === "user") turns.pop();
await outbox.ready.catch((error) => {
  showNotice(error.message);
  throw error;
});
outbox.flush(true);
document.body.dataset.ready = "yes";
