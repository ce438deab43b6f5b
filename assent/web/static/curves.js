// Curves of a stage while it runs: one small chart for each metric, drawn again every few seconds.
// The server sends points and ticks: it thins and rounds them by the same rules as the report.
import { base } from "./dom.js";

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 150, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;
const MAX_DOTS = 30;
const REFRESH_INTERVAL = 3000; // milliseconds

const query = (selector) => document.querySelector(selector);
const run = query("main").dataset.run;
let lastText = "";

function createSvg(tag, attributes, text) {
  const node = document.createElementNS(SVG_NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function shortNumber(value, digits = 3) {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  const text = rounded !== 0 && (size >= 1e6 || size < 1e-4) ? rounded.toExponential() : String(rounded);
  return text.replaceAll("-", "\u2212");
}

function createChart(metric, curve) {
  const { points, ticks } = curve;
  const steps = points.map(([step]) => step);
  const [firstStep, lastStep] = [steps[0], steps.at(-1)];
  const [low, high] = [ticks[0], ticks.at(-1)];
  const right = WIDTH - RIGHT;
  const x = (step) => LEFT + ((right - LEFT) * (step - firstStep)) / (lastStep - firstStep || 1);
  const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - value)) / (high - low || 1);
  const lastValue = shortNumber(points.at(-1)[1]);
  const label = `${metric}: ends at ${lastValue} in step ${lastStep}`;
  const chart = createSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const tick of ticks) {
    chart.append(createSvg("line", { x1: LEFT, x2: right, y1: y(tick), y2: y(tick), class: "grid" }));
    chart.append(createSvg("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" }, shortNumber(tick, 6)));
  }
  chart.append(createSvg("text", { x: LEFT, y: HEIGHT - 5 }, `step ${Math.round(firstStep)}`));
  if (lastStep > firstStep)
    chart.append(createSvg("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, String(Math.round(lastStep))));
  const path = points.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  chart.append(createSvg("path", { d: `M${path}`, class: "curve" }));
  if (points.length <= MAX_DOTS)
    for (const [step, value] of points)
      chart.append(createSvg("circle", { cx: x(step), cy: y(value), r: points.length > 1 ? 2.2 : 3.2, class: "curve" }));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = `${metric} ${lastValue}`;
  figure.append(caption, chart);
  return figure;
}

async function refresh() {
  const response = await fetch(`${base}/r/${encodeURIComponent(run)}/api/metrics`).catch(() => null);
  if (!response?.ok) return (query("#live").textContent = "the server cannot be reached");
  const text = await response.text();
  if (text === lastText) return;
  const hasChanged = lastText !== "";
  lastText = text;
  const stages = Object.keys(JSON.parse(text));
  if (!stages.length) return;
  const select = query("#stage");
  const selected = select.value;
  select.replaceChildren(...stages.map((stage) => new Option(stage, stage)));
  select.value = stages.includes(selected) ? selected : stages.at(-1);
  select.closest(".actions").hidden = false;
  query("#live").textContent = hasChanged ? "live" : "";
  showStage();
}

function showStage() {
  const metrics = JSON.parse(lastText)[query("#stage").value];
  query("#curves").replaceChildren(...Object.entries(metrics).map(([metric, curve]) => createChart(metric, curve)));
}

query("#stage").addEventListener("change", showStage);
await refresh();
document.body.dataset.ready = "yes";
setInterval(() => document.hidden || refresh(), REFRESH_INTERVAL);
