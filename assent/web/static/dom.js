// DOM elements, and the only function that inserts HTML, which the server has sanitised.

const policy = globalThis.trustedTypes
  ? trustedTypes.createPolicy("assent", { createHTML: (text) => text })
  : { createHTML: (text) => text };

// Make an element with attributes (`onclick` and the like are listeners) and children; null children are left out.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Insert HTML that the server rendered and sanitised.
export function fill(node, html) {
  node.innerHTML = policy.createHTML(html);
  return node;
}

// What people see of a task's items: clips of an agent, or responses.
export const nounOf = (task) => (task.is_clips ? "clip" : "response");
export const capitalise = (word) => word[0].toUpperCase() + word.slice(1);

export const letter = (index) => String.fromCharCode(65 + index);

// The path below the host at which the server is reached: empty, or such as `/lab`.
export const base = document.documentElement.dataset.base ?? "";

// Make a UUID, RFC 9562 version 7: it begins with the time and never repeats, so ids sort by time.
let latest = 0;
export function uuid7() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let now = (latest = Math.max(Date.now(), latest + 1));
  for (let i = 5; i >= 0; i--, now = Math.floor(now / 256)) bytes[i] = now % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

// Return the key as the page names it, on any keyboard layout: the letter or digit that the layout has there, else the
// key at this place of a US keyboard. A French labeller needs no Shift for digits; a Russian, Greek or Hebrew one
// need not switch layouts.
export function keyOf({ key, code, shiftKey }) {
  if (key.length > 1) return key;
  const letter = key.toLowerCase();
  if (/^[a-z0-9=?]$/.test(letter)) return letter;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code ?? "");
  if (digit && !shiftKey) return digit[1];
  const place = key > "\x7f" && /^Key([A-Z])$/.exec(code ?? "");
  if (key > "\x7f" && code === "BracketLeft") return "[";
  return place ? place[1].toLowerCase() : letter;
}

// Is the user typing? Then keys are text, not shortcuts.
export const isTyping = (event) =>
  event.isComposing || (["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName) && event.target.type !== "range") || event.target.isContentEditable;
