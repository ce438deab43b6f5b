// What every page has: the theme button, and players of clips.
document.querySelector("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("assent-theme", root.dataset.theme);
});

// Clips of agents; those of one task play in step.
for (const group of document.querySelectorAll(".pair, .across")) {
  const canvases = group.querySelectorAll("canvas.clip");
  if (canvases.length) import("./clip.js").then(({ makePlayer }) => group.after(makePlayer(canvases).node));
}
