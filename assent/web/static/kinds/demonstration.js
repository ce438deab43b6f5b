// The answer that a person would give.
import { el } from "../dom.js";

export const keys = "Write the answer. Ctrl+Enter submits.";

export function make(item, answer, changed) {
  const text = el("textarea", { dir: "auto", rows: 9, "aria-label": "Your answer", placeholder: "Write the answer that should be given." });
  const count = el("p", { class: "hint" });
  text.value = answer.text ?? "";
  const show = () => (count.textContent = `${text.value.trim() ? text.value.trim().split(/\s+/).length : 0} words`);
  text.addEventListener("input", () => {
    answer.text = text.value;
    show();
    changed(false);
  });
  show();
  return { node: el("div", { class: "writing" }, text, count), key: () => false, ready: () => Boolean(text.value.trim()), better: () => null };
}
