// A kind of feedback that has no control of its own: a field for each of its fields.
import { el } from "../dom.js";

export const keys = "Fill in the form. Ctrl+Enter submits.";

export function make(item, answer, changed) {
  const fields = item.form.map((entry) => {
    const set = (value) => {
      if (value === "" || value === null) delete answer[entry.name];
      else answer[entry.name] = value;
      changed(false);
    };
    let input;
    if (entry.type === "choice") {
      input = el("select", { onchange: () => set(input.value) }, el("option", { value: "" }, "–"),
        ...entry.choices.map((choice) => el("option", { value: choice }, choice)));
      input.value = answer[entry.name] ?? "";
    } else if (entry.type === "flag") {
      input = el("input", { type: "checkbox", onchange: () => set(input.checked) });
      input.checked = answer[entry.name] ?? false;
      if (entry.required && !(entry.name in answer)) answer[entry.name] = false;
    } else if (entry.type === "number") {
      input = el("input", { type: "number", step: "any", oninput: () => set(input.value === "" ? null : Number(input.value)) });
      input.value = answer[entry.name] ?? "";
    } else {
      input = el("textarea", { rows: 2, dir: "auto", oninput: () => set(input.value) });
      input.value = answer[entry.name] ?? "";
    }
    return el("label", { class: "field" }, el("span", {}, entry.name.replaceAll("_", " "), entry.required ? " *" : ""), input,
      entry.help ? el("small", {}, entry.help) : null);
  });
  return { node: el("div", { class: "form" }, ...fields), key: () => false,
    ready: () => item.form.every((entry) => !entry.required || entry.name in answer), better: () => null };
}
