// From 1 to 7 on each axis: a digit sets the one that is marked and goes to the next.
import { el } from "../dom.js";

export const keys = "1 to 7: rate the marked axis. ↑ ↓: another axis.";

export function make(item, answer, changed) {
  const given = new Map(answer.axes ?? []);
  let at = Math.max(0, item.axes.findIndex((axis) => !given.has(axis)));
  const rows = item.axes.map((axis, i) => {
    const steps = [1, 2, 3, 4, 5, 6, 7].map((value) =>
      el("button", { type: "button", "aria-pressed": "false", "aria-label": `${axis}: ${value} of 7`, onclick: () => { at = i; set(value); } }, String(value)));
    return { axis, steps, node: el("div", { class: "axis", role: "group", "aria-label": axis }, el("span", { class: "axis-name" }, axis), ...steps) };
  });
  function show() {
    rows.forEach(({ axis, steps, node }, i) => {
      node.classList.toggle("marked", i === at);
      steps.forEach((step, j) => step.setAttribute("aria-pressed", given.get(axis) === j + 1));
    });
  }
  function set(value) {
    given.set(item.axes[at], value);
    answer.axes = [...given];
    at = Math.min(at + 1, item.axes.length - 1);
    show();
    changed(given.size === item.axes.length);
  }
  show();
  return {
    node: el("div", { class: "axes" }, ...rows.map((row) => row.node)),
    key: (key) => {
      if (/^[1-7]$/.test(key)) set(Number(key));
      else if (key === "ArrowDown") at = Math.min(at + 1, item.axes.length - 1);
      else if (key === "ArrowUp") at = Math.max(at - 1, 0);
      else return false;
      show();
      return true;
    },
    ready: () => given.size === item.axes.length,
    better: () => null,
  };
}
