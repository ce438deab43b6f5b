// Comparison: which of two responses is better, and by how much. Keys on the left mean the response on the left.
import { el, nounOf } from "../dom.js";

const SCALE = [
  ["1", "A much", 0, 3], ["2", "A better", 0, 2], ["3", "A slightly", 0, 1],
  ["4", "Tie", "tie"], ["0", "Both bad", "both bad"],
  ["5", "B slightly", 1, 1], ["6", "B better", 1, 2], ["7", "B much", 1, 3],
];

// Of clips: the arrows of Christiano et al. 2017, appendix B.
const SCALE_OF_CLIPS = [
  ["1", "A much", 0, 3], ["2", "A better", 0, 2, "←"], ["3", "A slightly", 0, 1],
  ["4", "Tie", "tie", 0, "↑"], ["", "Cannot tell", "cannot tell", 0, "↓"],
  ["5", "B slightly", 1, 1], ["6", "B better", 1, 2, "→"], ["7", "B much", 1, 3],
];
const ARROWS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

export const helpOnClips = "←: A is better. →: B is better. ↑: tie. ↓: cannot tell. 1 2 3: A is much better, better, slightly better. 5 6 7: B slightly, better, much. 4: tie.";
export const help = "1 2 3: A is much better, better, slightly better. 5 6 7: B slightly, better, much. 4: tie. 0: both bad.";

export function makeControl(item, judgement, onChange) {
  const scale = item.is_clips ? SCALE_OF_CLIPS : SCALE;
  const toJudgement = ([, , side, strength]) =>
    typeof side === "number" ? { verdict: "better", preferred: item.items[side].id, strength } : { verdict: side };
  const isChosen = (step) => Object.entries(toJudgement(step)).every(([name, value]) => judgement[name] === value);
  const buttons = scale.map((step) =>
    el("button", { type: "button", class: `step ${typeof step[2] === "number" ? "ab"[step[2]] : "middle"}`,
      "aria-pressed": "false", onclick: () => choose(step) },
    el("span", {}, step[1]), el("kbd", {}, [step[4], step[0]].filter(Boolean).join(" "))));
  const update = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", isChosen(scale[i])));
  function choose(step) {
    Object.keys(judgement).forEach((name) => delete judgement[name]);
    Object.assign(judgement, toJudgement(step));
    update();
    onChange(true);
  }
  update();
  return {
    node: el("div", { class: "scale", role: "group", "aria-label": `Which ${nounOf(item)} is better` }, ...buttons),
    handleKey: (key) => {
      const step = scale.find(([name, , , , arrow]) => name === key || (arrow && arrow === ARROWS[key]));
      if (step) choose(step);
      return Boolean(step);
    },
    isReady: () => Boolean(judgement.verdict),
    preferred: () => judgement.preferred || null,
  };
}
