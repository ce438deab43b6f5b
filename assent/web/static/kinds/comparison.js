// Which of two, and by how much. Keys stay where they are for ever: left of the keyboard, left on the screen.
import { el } from "../dom.js";

const SCALE = [
  ["1", "A much", 0, 3], ["2", "A better", 0, 2], ["3", "A slightly", 0, 1],
  ["4", "Tie", "tie"], ["0", "Both bad", "both bad"],
  ["5", "B slightly", 1, 1], ["6", "B better", 1, 2], ["7", "B much", 1, 3],
];

export const keys = "1 2 3: A is much better, better, slightly better. 5 6 7: B slightly, better, much. 4: tie. 0: both bad.";

export function make(item, answer, changed) {
  const says = ([, , side, strength]) =>
    typeof side === "number" ? { verdict: "better", preferred: item.items[side].id, strength } : { verdict: side };
  const same = (said, answer) => Object.entries(said).every(([name, value]) => answer[name] === value);
  const buttons = SCALE.map((step) =>
    el("button", { type: "button", class: `step ${typeof step[2] === "number" ? "ab"[step[2]] : "middle"}`,
      "aria-pressed": "false", onclick: () => choose(step) },
    el("span", {}, step[1]), el("kbd", {}, step[0])));
  const show = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", same(says(SCALE[i]), answer)));
  function choose(step) {
    Object.keys(answer).forEach((name) => delete answer[name]);
    Object.assign(answer, says(step));
    show();
    changed(true);
  }
  show();
  return {
    node: el("div", { class: "scale", role: "group", "aria-label": "Which answer is better" }, ...buttons),
    key: (key) => {
      const step = SCALE.find(([name]) => name === key);
      if (step) choose(step);
      return Boolean(step);
    },
    ready: () => Boolean(answer.verdict),
    better: () => answer.preferred || null,
  };
}
