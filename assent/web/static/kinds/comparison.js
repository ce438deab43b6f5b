// Comparison: which of two responses is better, and by how much. Keys on the left mean the response on the left.
import { el } from "../dom.js";

const SCALE = [
  ["1", "A much", 0, 3], ["2", "A better", 0, 2], ["3", "A slightly", 0, 1],
  ["4", "Tie", "tie"], ["0", "Both bad", "both bad"],
  ["5", "B slightly", 1, 1], ["6", "B better", 1, 2], ["7", "B much", 1, 3],
];

export const help = "1 2 3: A is much better, better, slightly better. 5 6 7: B slightly, better, much. 4: tie. 0: both bad.";

export function makeControl(item, judgement, onChange) {
  const toJudgement = ([, , side, strength]) =>
    typeof side === "number" ? { verdict: "better", preferred: item.items[side].id, strength } : { verdict: side };
  const isChosen = (step) => Object.entries(toJudgement(step)).every(([name, value]) => judgement[name] === value);
  const buttons = SCALE.map((step) =>
    el("button", { type: "button", class: `step ${typeof step[2] === "number" ? "ab"[step[2]] : "middle"}`,
      "aria-pressed": "false", onclick: () => choose(step) },
    el("span", {}, step[1]), el("kbd", {}, step[0])));
  const update = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", isChosen(SCALE[i])));
  function choose(step) {
    Object.keys(judgement).forEach((name) => delete judgement[name]);
    Object.assign(judgement, toJudgement(step));
    update();
    onChange(true);
  }
  update();
  return {
    node: el("div", { class: "scale", role: "group", "aria-label": "Which response is better" }, ...buttons),
    handleKey: (key) => {
      const step = SCALE.find(([name]) => name === key);
      if (step) choose(step);
      return Boolean(step);
    },
    isReady: () => Boolean(judgement.verdict),
    preferred: () => judgement.preferred || null,
  };
}
