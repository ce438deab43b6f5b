// Correction: the labeller edits the response, with the changes marked beside it.
import { markChanges } from "../diff.js";
import { el } from "../dom.js";

export const help = "Edit the text; the changes are marked beside it. Ctrl+Enter submits. If nothing needs a correction: Escape, then N.";
export const showsSource = true;

export function makeControl(item, judgement, onChange) {
  const original = item.items[0].raw ?? item.items[0].text; // reasoning and tool calls are not edited
  const text = el("textarea", { rows: 7, dir: "auto", "aria-label": "Corrected response" });
  text.value = original;
  const untouched = text.value; // a textarea normalises line ends
  text.defaultValue = untouched;
  text.value = judgement.text ?? original;
  judgement.unchanged ??= judgement.text === original;
  const unchanged = el("button", { type: "button", onclick: () => toggleUnchanged() }, "No correction needed ", el("kbd", {}, "N"));
  const changes = el("div", { class: "diff", role: "region", tabindex: "0", dir: "auto", "aria-label": "Your changes" });
  const update = () => {
    changes.replaceChildren(
      ...(text.value === untouched ? [el("span", { class: "none" }, judgement.unchanged ? "Marked as correct: no correction needed." : "No changes yet.")]
        : markChanges(untouched, text.value)));
    unchanged.setAttribute("aria-pressed", String(judgement.unchanged));
  };
  const setUnchanged = (isUnchanged) => {
    judgement.text = text.value;
    judgement.unchanged = isUnchanged;
    update();
    onChange(false);
  };
  function toggleUnchanged() {
    text.value = original;
    setUnchanged(!judgement.unchanged);
  }
  text.addEventListener("input", () => setUnchanged(false));
  update();
  return { node: el("div", { class: "writing" }, el("div", { class: "writing two" }, text, changes), el("div", { class: "actions" }, unchanged)),
    handleKey: (key) => key === "n" && (toggleUnchanged(), true),
    isReady: () => Boolean(text.value.trim()) && (text.value !== untouched || judgement.unchanged),
    preferred: () => null, toJudgement: () => ({ text: text.value === untouched ? original : text.value }) };
}
