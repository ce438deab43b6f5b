// Demonstration: the labeller writes the response.
import { el } from "../dom.js";

export const help = "Write the response. Ctrl+Enter submits.";

export function makeControl(item, judgement, onChange) {
  const text = el("textarea", { dir: "auto", rows: 9, "aria-label": "Your response", placeholder: "Write the ideal response." });
  const count = el("p", { class: "hint" });
  text.value = judgement.text ?? "";
  const update = () => (count.textContent = `${text.value.trim() ? text.value.trim().split(/\s+/).length : 0} words`);
  text.addEventListener("input", () => {
    judgement.text = text.value;
    update();
    onChange(false);
  });
  update();
  return { node: el("div", { class: "writing" }, text, count), handleKey: () => false, isReady: () => Boolean(text.value.trim()), preferred: () => null };
}
