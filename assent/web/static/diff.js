// What changed between two texts, word by word: the shortest edit script. Myers 1986 (doi:10.1007/BF01840446).

const MOST = 1500; // insertions and deletions that are looked for; beyond them the part between counts as replaced whole

const words = (text) => text.match(/\s+|[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]/gu) ?? [];

// Pairs [kind, text] with kind "same", "gone" or "new"; of one change what is gone comes first.
export function diff(before, after) {
  const a = words(before), b = words(after);
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const middle = edits(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (some) => some.map((word) => ["same", word]);
  return joined([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
}

function edits(a, b) {
  const rounds = search(a, b);
  if (!rounds) return [["gone", a.join("")], ["new", b.join("")]];
  const script = [];
  let x = a.length, y = b.length;
  for (let d = rounds.length - 1; d >= 0; d--) {
    const at = (k) => rounds[d][k + d + 1];
    const k = x - y, down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const fromX = at(down ? k + 1 : k - 1), fromY = fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY) script.push(["same", a[--x]]), y--;
    if (d > 0) script.push(down ? ["new", b[--y]] : ["gone", a[--x]]);
  }
  return script.reverse();
}

// How far each diagonal reaches before each round, or null if that takes too many.
function search(a, b) {
  const most = Math.min(a.length + b.length, MOST), zero = most + 1;
  const reach = new Int32Array(2 * most + 3), rounds = [];
  for (let d = 0; d <= most; d++) {
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

function joined(script) {
  const parts = [];
  let gone = "", fresh = "";
  const flush = () => {
    if (gone) parts.push(["gone", gone]);
    if (fresh) parts.push(["new", fresh]);
    gone = fresh = "";
  };
  for (const [kind, text] of script) {
    if (kind === "gone") gone += text;
    else if (kind === "new") fresh += text;
    else {
      flush();
      if (parts.at(-1)?.[0] === "same") parts.at(-1)[1] += text;
      else parts.push(["same", text]);
    }
  }
  flush();
  return parts;
}
