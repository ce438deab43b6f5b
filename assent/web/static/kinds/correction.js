// The answer as it should have been: change it, and see what you changed.
import { diff } from "../diff.js";
import { el } from "../dom.js";

export const keys = "Change the text; below it stands what changed. Ctrl+Enter submits.";
export const raw = true;

export function make(item, answer, changed) {
  const original = item.items[0].text;
  const text = el("textarea", { rows: 7, "aria-label": "The corrected answer" });
  text.value = answer.text ?? original;
  const shown = el("div", { class: "diff", role: "region", tabindex: "0", "aria-label": "What you changed" });
  const tags = { same: "span", gone: "del", new: "ins" };
  const show = () => shown.replaceChildren(
    ...(text.value === original ? [el("span", { class: "none" }, "Nothing changed: submitting says that nothing has to be mended.")]
      : diff(original, text.value).map(([kind, words]) => el(tags[kind], {}, words))));
  text.addEventListener("input", () => {
    answer.text = text.value;
    show();
    changed(false);
  });
  show();
  return { node: el("div", { class: "writing two" }, text, shown), key: () => false,
    ready: () => Boolean((answer.text = text.value).trim()), better: () => null };
}
