// Clips of agents: one player shows all clips of a screen in step, drawn from shapes or cut from a sheet of pictures.
import { base, el } from "./dom.js";

export const help = "Space: pause or play the clips. , and .: one frame back or forward. [: half speed.";

const REST = 0.5; // seconds for which the last frame stays before the clips begin again

const address = (id) => `${base}/r/${encodeURIComponent(document.documentElement.dataset.run)}/clip/${id}`;

// Load a clip with its pictures; the browser keeps it, so that the next call is fast.
export async function load(id) {
  const response = await fetch(address(id));
  const clip = await response.json();
  if (!response.ok) throw new Error(clip.detail);
  if (clip.kind === "pictures") {
    clip.sheet = new Image();
    clip.sheet.src = `${address(id)}.webp`;
    await clip.sheet.decode();
    return { ...clip, length: clip.frames, view: [0, 0, clip.width, clip.height] };
  }
  return { ...clip, length: clip.frames.length, view: clip.frames[0][0] };
}

// Make the player of some canvases: { node, handleKey, isBroken }.
export function makePlayer(canvases) {
  const clips = new Map(); // the clip of each canvas, once all are loaded
  let isPlaying = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let position = 0; // frames since the beginning; the rest after the last frame counts too
  let length = 1, fps = 1, speed = 1, isBroken = false;
  let lastTime = 0, lastLook = "";

  const step = (frames) => {
    setPlaying(false);
    position = (Math.min(Math.floor(position), length - 1) + frames + length) % length;
  };
  const toggle = el("button", { type: "button", class: "toggle", onclick: () => setPlaying(!isPlaying) });
  const half = el("button", { type: "button", "aria-pressed": "false", onclick: () => toggleSpeed() }, "½ speed ", el("kbd", {}, "["));
  const slider = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Frame", oninput: () => {
    setPlaying(false);
    position = Number(slider.value);
  } });
  const node = el("div", { class: "player", role: "group", "aria-label": "Clips" }, toggle,
    el("button", { type: "button", "aria-label": "One frame back", onclick: () => step(-1) }, "‹ ", el("kbd", {}, ",")),
    el("button", { type: "button", "aria-label": "One frame forward", onclick: () => step(1) }, "› ", el("kbd", {}, ".")),
    half, slider);

  function setPlaying(value) {
    isPlaying = value;
    toggle.replaceChildren(isPlaying ? "Pause " : "Play ", el("kbd", {}, "Space"));
  }
  function toggleSpeed() {
    speed = speed === 1 ? 0.5 : 1;
    half.setAttribute("aria-pressed", String(speed !== 1));
  }

  async function start() {
    const results = await Promise.allSettled([...canvases].map((canvas) => load(canvas.dataset.clip)));
    results.forEach(({ value: clip, reason }, i) => clip ? describe(canvases[i], clip) : fail(canvases[i], reason));
    if (!clips.size) return (node.hidden = true);
    length = Math.max(...[...clips.values()].map((clip) => clip.length));
    fps = clips.values().next().value.fps;
    slider.max = length - 1;
    lastTime = performance.now();
    requestAnimationFrame(tick);
  }
  function describe(canvas, clip) {
    const [left, bottom, right, top] = clip.view;
    const name = canvas.closest(".item")?.querySelector("h2")?.firstChild.textContent.trim();
    canvas.style.aspectRatio = `${right - left} / ${top - bottom}`;
    canvas.setAttribute("aria-label", `${name || "Clip"}, ${(clip.length / clip.fps).toFixed(1)} seconds`);
    clips.set(canvas, clip);
  }
  function fail(canvas, reason) {
    isBroken = true;
    const text = reason instanceof TypeError ? "no connection to the server: reload the page" : reason.message;
    canvas.replaceWith(el("p", { class: "alert", role: "alert" }, `This clip cannot be shown: ${text}`));
  }

  // Draw when something has changed: the frame, the size, or the colours of the theme.
  function tick(now) {
    if (!node.isConnected) return;
    const seconds = Math.max(0, now - lastTime) / 1000; // the first frame's time may lie before the start
    if (isPlaying) position = (position + seconds * fps * speed) % (length + REST * fps);
    lastTime = now;
    const frame = Math.min(Math.floor(position), length - 1), tones = themeTones();
    const sizes = [...clips.keys()].flatMap((canvas) => [canvas.clientWidth, canvas.clientHeight]);
    const look = [frame, devicePixelRatio, ...sizes, ...Object.values(tones)].join();
    if (look !== lastLook) {
      slider.value = frame;
      slider.setAttribute("aria-valuetext", `${frame + 1} of ${length}`);
      clips.forEach((clip, canvas) => draw(canvas, clip, Math.min(frame, clip.length - 1), tones));
    }
    lastLook = look;
    requestAnimationFrame(tick);
  }

  setPlaying(isPlaying);
  start();
  const keys = { " ": () => setPlaying(!isPlaying), ",": () => step(-1), ".": () => step(1), "[": toggleSpeed };
  return { node, isBroken: () => isBroken, handleKey: (key) => Boolean(keys[key]) && (keys[key](), true) };
}

function themeTones() {
  const style = getComputedStyle(document.documentElement);
  const tone = (name) => style.getPropertyValue(name).trim();
  return { ink: tone("--ink"), accent: tone("--main"), muted: tone("--faint") };
}

function draw(canvas, clip, frame, tones) {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  canvas.dataset.frame = frame;
  const context = canvas.getContext("2d");
  const [left, bottom, right, top] = clip.kind === "pictures" ? clip.view : clip.frames[frame][0];
  const scale = Math.min(canvas.width / (right - left), canvas.height / (top - bottom));
  context.translate(canvas.width / 2, canvas.height / 2);
  if (clip.kind === "pictures") return drawPicture(context, clip, frame, scale);
  context.scale(scale, -scale); // y points up
  context.translate(-(left + right) / 2, -(bottom + top) / 2);
  context.beginPath();
  context.rect(left, bottom, right - left, top - bottom);
  context.clip();
  clip.frames[frame][1].forEach((shape) => drawShape(context, shape, tones));
}

function drawPicture(context, { sheet, columns, width, height }, frame, scale) {
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(sheet, (frame % columns) * width, Math.floor(frame / columns) * height, width, height,
    (-width * scale) / 2, (-height * scale) / 2, width * scale, height * scale);
}

// A dot is [x, y, radius, tone], a line [x0, y0, x1, y1, width, tone].
function drawShape(context, shape, tones) {
  const tone = tones[shape.at(-1)];
  context.beginPath();
  if (shape.length === 4) {
    context.fillStyle = tone;
    context.arc(shape[0], shape[1], shape[2], 0, 2 * Math.PI);
    return context.fill();
  }
  context.strokeStyle = tone;
  context.lineWidth = shape[4];
  context.lineCap = "round";
  context.moveTo(shape[0], shape[1]);
  context.lineTo(shape[2], shape[3]);
  context.stroke();
}
