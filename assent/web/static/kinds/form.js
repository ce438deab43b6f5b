// A form for a kind of feedback that has no control of its own, made from its fields.
import { el } from "../dom.js";

export const help = "Fill in the form. Ctrl+Enter submits.";

export function makeControl(item, judgement, onChange) {
  const fields = item.form.map((entry) => {
    const set = (value) => {
      if (value === "" || value === null) delete judgement[entry.name];
      else judgement[entry.name] = value;
      onChange(false);
    };
    let input;
    if (entry.type === "choice") {
      input = el("select", { onchange: () => set(input.value) }, el("option", { value: "" }, "–"),
        ...entry.choices.map((choice) => el("option", { value: choice }, choice)));
      input.value = judgement[entry.name] ?? "";
    } else if (entry.type === "flag") {
      input = el("input", { type: "checkbox", onchange: () => set(input.checked) });
      input.checked = judgement[entry.name] ?? false;
      if (entry.required && !(entry.name in judgement)) judgement[entry.name] = false;
    } else if (entry.type === "number") {
      input = el("input", { type: "number", step: "any", oninput: () => set(input.value === "" ? null : Number(input.value)) });
      input.value = judgement[entry.name] ?? "";
    } else {
      input = el("textarea", { rows: 2, dir: "auto", oninput: () => set(input.value) });
      input.value = judgement[entry.name] ?? "";
    }
    return el("label", { class: "field" }, el("span", {}, entry.name.replaceAll("_", " "), entry.required ? " *" : ""), input,
      entry.help ? el("small", {}, entry.help) : null);
  });
  return { node: el("div", { class: "form" }, ...fields), handleKey: () => false,
    isReady: () => item.form.every((entry) => !entry.required || entry.name in judgement), preferred: () => null };
}
