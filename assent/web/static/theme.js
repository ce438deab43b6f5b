// Light or dark as the system says, unless somebody chose; before anything is drawn.
const chosen = localStorage.getItem("assent-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
