// Curves of a stage, as it runs: one small chart a metric, drawn anew every few seconds.
import { base } from "./dom.js";

const NS = "http://www.w3.org/2000/svg";
const $ = (selector) => document.querySelector(selector);
const run = $("main").dataset.run;
const W = 320, H = 130, L = 46, B = 20, T = 8;
let last = "";

function svg(tag, attributes, text) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1e4 || Math.abs(value) < 1e-2 ? value.toExponential(0) : String(Number(value.toPrecision(3))));

function chart(name, points) {
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  let [low, high] = [Math.min(...ys), Math.max(...ys)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const [from, to] = [Math.min(...xs), Math.max(...xs)];
  const x = (value) => L + ((W - L - 6) * (value - from)) / (to - from || 1);
  const y = (value) => T + (H - T - B) * (1 - (value - low) / (high - low));
  const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${name}: from ${short(ys[0])} to ${short(ys.at(-1))} in ${points.length} points` });
  for (const value of [low, (low + high) / 2, high]) {
    node.append(svg("line", { x1: L, x2: W - 6, y1: y(value), y2: y(value), class: "grid" }));
    node.append(svg("text", { x: L - 5, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  node.append(svg("text", { x: L, y: H - 4 }, short(from)), svg("text", { x: W - 6, y: H - 4, "text-anchor": "end" }, `step ${short(to)}`));
  node.append(svg("path", { d: "M" + points.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L"), class: "curve" }));
  if (points.length === 1) node.append(svg("circle", { cx: x(from), cy: y(ys[0]), r: 3, class: "curve" }));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = `${name} ${short(ys.at(-1))}`;
  figure.append(caption, node);
  return figure;
}

async function draw() {
  const response = await fetch(`${base}/r/${encodeURIComponent(run)}/api/metrics`).catch(() => null);
  if (!response?.ok) return ($("#live").textContent = "the server cannot be reached");
  const text = await response.text();
  if (text === last) return;
  const grew = last !== "";
  last = text;
  const stages = JSON.parse(text);
  const names = Object.keys(stages);
  if (!names.length) return;
  const select = $("#stage");
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : names.at(-1);
  select.closest(".actions").hidden = false;
  $("#live").textContent = grew ? "live" : "";
  show();
}

function show() {
  const stage = JSON.parse(last)[$("#stage").value];
  $("#curves").replaceChildren(...Object.entries(stage).map(([name, points]) => chart(name, points)));
}

$("#stage").addEventListener("change", show);
await draw();
document.body.dataset.ready = "yes";
setInterval(() => document.hidden || draw(), 3000);
