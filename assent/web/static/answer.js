// A correction beside what it corrects: what is gone and what is new.
import { diff } from "./diff.js";
import { el } from "./dom.js";

const TAGS = { same: "span", gone: "del", new: "ins" };
for (const node of document.querySelectorAll("[data-before]"))
  node.replaceChildren(...diff(node.dataset.before, node.textContent).map(([kind, words]) => el(TAGS[kind], {}, words)));
