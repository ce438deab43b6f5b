// Light or dark as the system says, unless the user chose; this runs before the page is drawn.
const chosen = localStorage.getItem("assent-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
