// Rating: 1 to 7 on each axis; a digit rates the active axis and moves to the next.
import { el } from "../dom.js";

export const help = "1 to 7: rate the active axis. ↑ ↓: change the axis.";

export function makeControl(item, judgement, onChange) {
  const values = new Map(judgement.axes ?? []);
  let active = Math.max(0, item.axes.findIndex((axis) => !values.has(axis)));
  const rows = item.axes.map((axis, i) => {
    const steps = [1, 2, 3, 4, 5, 6, 7].map((value) =>
      el("button", { type: "button", "aria-pressed": "false", "aria-label": `${axis}: ${value} of 7`, onclick: () => { active = i; set(value); } }, String(value)));
    return { axis, steps, node: el("div", { class: "axis", role: "group", "aria-label": axis }, el("span", { class: "axis-name" }, axis), ...steps) };
  });
  function update() {
    rows.forEach(({ axis, steps, node }, i) => {
      node.classList.toggle("marked", i === active);
      steps.forEach((step, j) => step.setAttribute("aria-pressed", values.get(axis) === j + 1));
    });
  }
  function set(value) {
    values.set(item.axes[active], value);
    judgement.axes = [...values];
    active = Math.min(active + 1, item.axes.length - 1);
    update();
    onChange(values.size === item.axes.length);
  }
  update();
  return {
    node: el("div", { class: "axes" }, ...rows.map((row) => row.node)),
    handleKey: (key) => {
      if (/^[1-7]$/.test(key)) set(Number(key));
      else if (key === "ArrowDown") active = Math.min(active + 1, item.axes.length - 1);
      else if (key === "ArrowUp") active = Math.max(active - 1, 0);
      else return false;
      update();
      return true;
    },
    isReady: () => values.size === item.axes.length,
    preferred: () => null,
  };
}
