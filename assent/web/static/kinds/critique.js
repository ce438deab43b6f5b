// What is wrong or right, in words; text that is marked in the answer is quoted.
import { el } from "../dom.js";

export const keys = "Mark a passage of the answer, by mouse or with Shift and the arrows, to quote it; then write. Ctrl+Enter submits.";
export const raw = true;

export function make(item, answer, changed) {
  const quote = el("blockquote", { class: "quote", dir: "auto" });
  const text = el("textarea", { dir: "auto", rows: 3, "aria-label": "Your critique", placeholder: "What is wrong, or right, and why?" });
  text.value = answer.text ?? "";
  const clear = el("button", { type: "button", class: "quiet", onclick: () => set("") }, "no quote");
  function set(words) {
    answer.quote = words;
    show(words);
    changed(false);
  }
  function show(words) {
    quote.textContent = words || "Mark a passage of the answer to quote it.";
    quote.classList.toggle("none", !words);
    clear.hidden = !words;
  }
  text.addEventListener("input", () => {
    answer.text = text.value;
    changed(false);
  });
  show(answer.quote ?? "");
  return { node: el("div", { class: "writing" }, el("div", { class: "quoting" }, quote, clear), text),
    key: () => false, ready: () => Boolean(text.value.trim()), better: () => null, mark: set };
}
