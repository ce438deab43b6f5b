// The answer as it should have been: change it, and see what you changed.
import { diff } from "../diff.js";
import { el } from "../dom.js";

export const keys = "Change the text; beside it stands what changed. Ctrl+Enter submits. If nothing has to be mended, say so: Escape, then N.";
export const raw = true;

export function make(item, answer, changed) {
  const original = item.items[0].raw ?? item.items[0].text; // thoughts and calls stay as they are
  const text = el("textarea", { rows: 7, dir: "auto", "aria-label": "The corrected answer" });
  text.value = original;
  const untouched = text.value; // a field writes every line end in one way
  text.defaultValue = untouched;
  text.value = answer.text ?? original;
  answer.unchanged ??= answer.text === original;
  const unchanged = el("button", { type: "button", onclick: () => keepAll() }, "Nothing to mend ", el("kbd", {}, "N"));
  const shown = el("div", { class: "diff", role: "region", tabindex: "0", dir: "auto", "aria-label": "What you changed" });
  const tags = { same: "span", gone: "del", new: "ins" };
  const show = () => {
    shown.replaceChildren(
      ...(text.value === untouched ? [el("span", { class: "none" }, answer.unchanged ? "You say that nothing has to be mended." : "Nothing changed yet.")]
        : diff(untouched, text.value).map(([kind, words]) => el(tags[kind], {}, words))));
    unchanged.setAttribute("aria-pressed", String(answer.unchanged));
  };
  const set = (deliberate) => {
    answer.text = text.value;
    answer.unchanged = deliberate;
    show();
    changed(false);
  };
  function keepAll() {
    text.value = original;
    set(!answer.unchanged);
  }
  text.addEventListener("input", () => set(false));
  show();
  return { node: el("div", { class: "writing" }, el("div", { class: "writing two" }, text, shown), el("div", { class: "actions" }, unchanged)),
    key: (key) => key === "n" && (keepAll(), true),
    ready: () => Boolean(text.value.trim()) && (text.value !== untouched || answer.unchanged),
    better: () => null, body: () => ({ text: text.value === untouched ? original : text.value }) };
}
