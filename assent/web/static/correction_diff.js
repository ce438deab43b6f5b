// A correction with its changes marked against the original text.
import { markChanges } from "./diff.js";

for (const node of document.querySelectorAll("[data-before]"))
  node.replaceChildren(...markChanges(node.dataset.before, node.textContent));
