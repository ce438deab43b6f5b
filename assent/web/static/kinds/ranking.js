// Ranking: press digits, best first; `=` ties the next response with the last, `0` ranks the rest as bad.
import { capitalise, el, nounOf } from "../dom.js";

export const help = "1 to 9: the next best one. =: tie the next one with the last. 0: the rest are bad. Backspace: remove the last one.";

export function makeControl(item, judgement, onChange) {
  let tiers = (judgement.tiers ?? []).map((tier) => [...tier]);
  let isTie = false;
  const noun = nounOf(item), name = (i) => `${capitalise(noun)} ${i + 1}`;
  const list = el("ol", { class: "tiers", "aria-live": "polite" });
  const picks = item.items.map((_, i) =>
    el("button", { type: "button", class: "pick", onclick: () => add(i) }, el("span", {}, name(i)), el("kbd", {}, String(i + 1))));
  const tieButton = el("button", { type: "button", "aria-pressed": "false", onclick: () => toggleTie() }, "Tie with the last ", el("kbd", {}, "="));
  const rest = el("button", { type: "button", onclick: () => rankRest() }, "The rest are bad ", el("kbd", {}, "0"));
  const back = el("button", { type: "button", onclick: () => removeLast() }, "Remove the last ", el("kbd", {}, "⌫"));
  const placed = () => tiers.flat();
  const index = (id) => item.items.findIndex((response) => response.id === id);

  function update() {
    list.replaceChildren(...tiers.map((tier) => el("li", {}, tier.map((id) => name(index(id))).join(" = "))));
    if (!tiers.length) list.append(el("li", { class: "none" }, `Nothing ranked yet: press the number of the best ${noun}.`));
    picks.forEach((button, i) => (button.disabled = placed().includes(item.items[i].id)));
    tieButton.setAttribute("aria-pressed", isTie);
    tieButton.disabled = !tiers.length;
    rest.disabled = !tiers.length || placed().length === item.items.length;
    back.disabled = !tiers.length;
    document.querySelectorAll("#items .item").forEach((node, i) => {
      const tier = tiers.findIndex((ids) => ids.includes(item.items[i].id));
      node.querySelector(".place").textContent = tier < 0 ? "" : `rank ${tier + 1}`;
    });
  }
  function save() {
    if (placed().length === item.items.length) judgement.tiers = tiers;
    else delete judgement.tiers;
    judgement.partial = tiers;
    update();
    onChange(placed().length === item.items.length);
  }
  function add(i) {
    const id = item.items[i]?.id;
    if (!id || placed().includes(id)) return;
    if (isTie && tiers.length) tiers.at(-1).push(id);
    else tiers.push([id]);
    isTie = false;
    save();
  }
  function rankRest() {
    const left = item.items.map((response) => response.id).filter((id) => !placed().includes(id));
    if (tiers.length && left.length) tiers.push(left);
    save();
  }
  function removeLast() {
    if (!tiers.length) return;
    tiers.at(-1).pop();
    if (!tiers.at(-1).length) tiers.pop();
    save();
  }
  function toggleTie() {
    isTie = !isTie && tiers.length > 0;
    update();
  }
  if (judgement.partial && !judgement.tiers) tiers = judgement.partial.map((tier) => [...tier]);
  queueMicrotask(update);
  return {
    node: el("div", { class: "ranking" }, list, el("div", { class: "picks" }, ...picks, tieButton, rest, back)),
    handleKey: (key) => {
      if (/^[1-9]$/.test(key)) add(Number(key) - 1);
      else if (key === "0") rankRest();
      else if (key === "=") toggleTie();
      else if (key === "Backspace") removeLast();
      else return false;
      return true;
    },
    isReady: () => Boolean(judgement.tiers),
    preferred: () => null,
    toJudgement: () => ({ tiers: judgement.tiers }),
  };
}
