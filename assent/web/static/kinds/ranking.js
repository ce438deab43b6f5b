// All of them in order: press digits best first; `=` puts the next beside the last, `0` says that the rest are bad.
import { el } from "../dom.js";

export const keys = "1 to 9: the next best. =: the next one ties with the last. 0: the rest are bad. Backspace: take one back.";

export function make(item, answer, changed) {
  let tiers = (answer.tiers ?? []).map((tier) => [...tier]);
  let tie = false;
  const place = el("ol", { class: "tiers", "aria-live": "polite" });
  const picks = item.items.map((one, i) =>
    el("button", { type: "button", class: "pick", onclick: () => add(i) }, el("span", {}, `Answer ${i + 1}`), el("kbd", {}, String(i + 1))));
  const tieButton = el("button", { type: "button", "aria-pressed": "false", onclick: () => toggle() }, "ties with the last ", el("kbd", {}, "="));
  const rest = el("button", { type: "button", onclick: () => finish() }, "the rest are bad ", el("kbd", {}, "0"));
  const back = el("button", { type: "button", onclick: () => undo() }, "take one back ", el("kbd", {}, "⌫"));
  const placed = () => tiers.flat();
  const number = (id) => item.items.findIndex((one) => one.id === id) + 1;

  function show() {
    place.replaceChildren(...tiers.map((tier) => el("li", {}, tier.map((id) => `Answer ${number(id)}`).join(" = "))));
    if (!tiers.length) place.append(el("li", { class: "none" }, "nothing placed yet: press the number of the best answer"));
    picks.forEach((button, i) => (button.disabled = placed().includes(item.items[i].id)));
    tieButton.setAttribute("aria-pressed", tie);
    tieButton.disabled = !tiers.length;
    rest.disabled = !tiers.length || placed().length === item.items.length;
    back.disabled = !tiers.length;
    document.querySelectorAll("#items .item").forEach((node, i) => {
      const tier = tiers.findIndex((some) => some.includes(item.items[i].id));
      node.querySelector(".place").textContent = tier < 0 ? "" : `place ${tier + 1}`;
    });
  }
  function settle() {
    if (placed().length === item.items.length) answer.tiers = tiers;
    else delete answer.tiers;
    answer.partial = tiers;
    show();
    changed(placed().length === item.items.length);
  }
  function add(i) {
    const id = item.items[i]?.id;
    if (!id || placed().includes(id)) return;
    if (tie && tiers.length) tiers.at(-1).push(id);
    else tiers.push([id]);
    tie = false;
    settle();
  }
  function finish() {
    const left = item.items.map((one) => one.id).filter((id) => !placed().includes(id));
    if (tiers.length && left.length) tiers.push(left);
    settle();
  }
  function undo() {
    if (!tiers.length) return;
    tiers.at(-1).pop();
    if (!tiers.at(-1).length) tiers.pop();
    settle();
  }
  function toggle() {
    tie = !tie && tiers.length > 0;
    show();
  }
  if (answer.partial && !answer.tiers) tiers = answer.partial.map((tier) => [...tier]);
  queueMicrotask(show);
  return {
    node: el("div", { class: "ranking" }, place, el("div", { class: "picks" }, ...picks, tieButton, rest, back)),
    key: (key) => {
      if (/^[1-9]$/.test(key)) add(Number(key) - 1);
      else if (key === "0") finish();
      else if (key === "=") toggle();
      else if (key === "Backspace") undo();
      else return false;
      return true;
    },
    ready: () => Boolean(answer.tiers),
    better: () => null,
    body: () => ({ tiers: answer.tiers }),
  };
}
