// Word-level difference of two texts: the shortest edit script. Myers 1986 (doi:10.1007/BF01840446).
import { el } from "./dom.js";

const TAGS = { same: "span", removed: "del", added: "ins" };
const MAX_EDITS = 1500; // insertions and deletions; beyond, the whole differing part counts as replaced

const splitWords = (text) => text.match(/\s+|[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]/gu) ?? [];

// Return elements that show the second text with its changes marked.
export const markChanges = (before, after) => diff(before, after).map(([kind, text]) => el(TAGS[kind], {}, text));

// Return pairs [kind, text] with kind "same", "removed" or "added"; within a change the removed text comes first.
function diff(before, after) {
  const a = splitWords(before), b = splitWords(after);
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const middle = editScript(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (words) => words.map((word) => ["same", word]);
  return mergeRuns([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
}

function editScript(a, b) {
  const rounds = findReach(a, b);
  if (!rounds) return [["removed", a.join("")], ["added", b.join("")]];
  const script = [];
  let x = a.length, y = b.length;
  for (let d = rounds.length - 1; d >= 0; d--) {
    const at = (k) => rounds[d][k + d + 1];
    const k = x - y, down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const fromX = at(down ? k + 1 : k - 1), fromY = fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY) script.push(["same", a[--x]]), y--;
    if (d > 0) script.push(down ? ["added", b[--y]] : ["removed", a[--x]]);
  }
  return script.reverse();
}

// Return how far each diagonal reaches before each round, or null if that takes more than MAX_EDITS rounds.
function findReach(a, b) {
  const maxEdits = Math.min(a.length + b.length, MAX_EDITS), zero = maxEdits + 1;
  const reach = new Int32Array(2 * maxEdits + 3), rounds = [];
  for (let d = 0; d <= maxEdits; d++) {
    rounds.push(reach.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      let x = k === -d || (k !== d && reach[zero + k - 1] < reach[zero + k + 1]) ? reach[zero + k + 1] : reach[zero + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach[zero + k] = x;
      if (x >= a.length && x - k >= b.length) return rounds;
    }
  }
  return null;
}

function mergeRuns(script) {
  const parts = [];
  let removed = "", added = "";
  const flush = () => {
    if (removed) parts.push(["removed", removed]);
    if (added) parts.push(["added", added]);
    removed = added = "";
  };
  for (const [kind, text] of script) {
    if (kind === "removed") removed += text;
    else if (kind === "added") added += text;
    else {
      flush();
      if (parts.at(-1)?.[0] === "same") parts.at(-1)[1] += text;
      else parts.push(["same", text]);
    }
  }
  flush();
  return parts;
}
