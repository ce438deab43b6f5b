// Signing in again on the page, without leaving it, or in another tab: what waits is sent afterwards.
import { base } from "./dom.js";

const LOOK = 5_000; // whether somebody has signed in elsewhere
const $ = (selector) => document.querySelector(selector);

const whoami = () => fetch(`${base}/api/me`).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);

// Ask for the password when the session of `person` (an id) has ended; `after` runs once they are back.
export function signIn(person, after) {
  const dialog = $("#sign-in"), form = $("#sign-in-form"), words = $("#sign-in-words");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(`${base}/login`, { method: "POST", body, redirect: "manual" }).catch(() => null);
    const me = await whoami();
    words.hidden = Boolean(me);
    if (!me) return (words.textContent = response ? "No account with this name and password." : "The server cannot be reached.");
    await welcome(me);
  });
  async function welcome(me) {
    if (me.id !== person) return location.reload();
    form.reset();
    dialog.close();
    await after();
  }
  setInterval(async () => {
    const me = dialog.open && !document.hidden && (await whoami());
    if (me && dialog.open) await welcome(me);
  }, LOOK);
  return {
    open: () => dialog.open || dialog.showModal(),
    close: () => dialog.open && dialog.close(),
  };
}
