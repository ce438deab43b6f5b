// Approval: a response is good enough, or not.
import { el, nounOf } from "../dom.js";

export const help = "J: approve. K: disapprove.";

export function makeControl(item, judgement, onChange) {
  const choices = [["j", "Approve", true], ["k", "Disapprove", false]];
  const buttons = choices.map(([key, label, value]) =>
    el("button", { type: "button", class: `step ${value ? "a" : "b"}`, "aria-pressed": "false", onclick: () => set(value) }, el("span", {}, label), el("kbd", {}, key.toUpperCase())));
  const update = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", judgement.approved === choices[i][2]));
  function set(value) {
    judgement.approved = value;
    update();
    onChange(true);
  }
  update();
  return {
    node: el("div", { class: "scale", role: "group", "aria-label": `Is the ${nounOf(item)} good enough` }, ...buttons),
    handleKey: (key) => {
      const choice = choices.find(([name]) => name === key.toLowerCase());
      if (choice) set(choice[2]);
      return Boolean(choice);
    },
    isReady: () => typeof judgement.approved === "boolean",
    preferred: () => null,
  };
}
