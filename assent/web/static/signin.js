// Signing in again without leaving the page, here or in another tab; waiting judgements are sent afterwards.
import { base } from "./dom.js";

const POLL_INTERVAL = 5_000; // milliseconds between checks for a sign-in in another tab
const $ = (selector) => document.querySelector(selector);

const fetchUser = () => fetch(`${base}/api/me`).then((response) => (response.ok ? response.json() : null)).catch(() => null);

// Ask for the password when the session of `user` (an id) has ended; `onSignedIn` runs afterwards.
export function signIn(user, onSignedIn) {
  const dialog = $("#sign-in"), form = $("#sign-in-form"), error = $("#sign-in-error");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(`${base}/login`, { method: "POST", body, redirect: "manual" }).catch(() => null);
    const signedIn = await fetchUser();
    error.hidden = Boolean(signedIn);
    if (!signedIn) return (error.textContent = response ? "No account with this name and password." : "The server cannot be reached.");
    await finish(signedIn);
  });
  async function finish(signedIn) {
    if (signedIn.id !== user) return location.reload();
    form.reset();
    dialog.close();
    await onSignedIn();
  }
  setInterval(async () => {
    const signedIn = dialog.open && !document.hidden && (await fetchUser());
    if (signedIn && dialog.open) await finish(signedIn);
  }, POLL_INTERVAL);
  return {
    open: () => dialog.open || dialog.showModal(),
    close: () => dialog.open && dialog.close(),
  };
}
