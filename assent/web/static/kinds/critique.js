// Critique: what is wrong or right, in words; text that is selected in the response is quoted.
import { el } from "../dom.js";

export const help = "Select a passage of the response, by mouse or with Shift and the arrow keys, to quote it; then write. Ctrl+Enter submits.";
export const helpOnClips = "Write what is wrong or right. Ctrl+Enter submits.";
export const showsSource = true;

export function makeControl(item, judgement, onChange) {
  const quote = el("blockquote", { class: "quote", dir: "auto" });
  const text = el("textarea", { dir: "auto", rows: 3, "aria-label": "Your critique", placeholder: "What is wrong or right, and why?" });
  text.value = judgement.text ?? "";
  const clear = el("button", { type: "button", class: "quiet", onclick: () => setQuote("") }, "Remove quote");
  function setQuote(passage) {
    judgement.quote = passage;
    update(passage);
    onChange(false);
  }
  function update(passage) {
    quote.textContent = passage || "Select a passage of the response to quote it.";
    quote.classList.toggle("none", !passage);
    clear.hidden = !passage;
  }
  text.addEventListener("input", () => {
    judgement.text = text.value;
    onChange(false);
  });
  update(judgement.quote ?? "");
  const quoting = item.is_clips ? null : el("div", { class: "quoting" }, quote, clear);
  return { node: el("div", { class: "writing" }, quoting, text),
    handleKey: () => false, isReady: () => Boolean(text.value.trim()), preferred: () => null, quote: item.is_clips ? null : setQuote };
}
