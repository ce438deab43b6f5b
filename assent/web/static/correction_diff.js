// A correction with its changes marked against the original text.
import { diff } from "./diff.js";
import { el } from "./dom.js";

const TAGS = { same: "span", removed: "del", added: "ins" };
for (const node of document.querySelectorAll("[data-before]"))
  node.replaceChildren(...diff(node.dataset.before, node.textContent).map(([kind, text]) => el(TAGS[kind], {}, text)));
