// Good enough, or not.
import { el } from "../dom.js";

export const keys = "J: approve. K: disapprove.";

export function make(item, answer, changed) {
  const choices = [["j", "Approve", true], ["k", "Disapprove", false]];
  const buttons = choices.map(([key, words, value]) =>
    el("button", { type: "button", class: `step ${value ? "a" : "b"}`, "aria-pressed": "false", onclick: () => set(value) }, el("span", {}, words), el("kbd", {}, key.toUpperCase())));
  const show = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", answer.approved === choices[i][2]));
  function set(value) {
    answer.approved = value;
    show();
    changed(true);
  }
  show();
  return {
    node: el("div", { class: "scale", role: "group", "aria-label": "Is it good enough" }, ...buttons),
    key: (key) => {
      const choice = choices.find(([name]) => name === key.toLowerCase());
      if (choice) set(choice[2]);
      return Boolean(choice);
    },
    ready: () => typeof answer.approved === "boolean",
    better: () => null,
  };
}
