/** One field of a form, with its label, a hint and an error message. */

import { element } from "./elements.js";

let number = 0; // labels name their inputs by id

/** A label, an input, and an error message that screen readers read with the input. */
export class Field {
  /**
   * @param {string} label
   * @param {HTMLElement} input
   * @param {string} hint
   */
  constructor(label, input, hint = "") {
    number += 1;
    this.input = input;
    this.input.id = `field-${number}`;
    this.problem = element("p", { class: "error", id: `problem-${number}`, role: "alert" });
    this.input.setAttribute("aria-describedby", this.problem.id);
    const said = element("label", { for: this.input.id }, label);
    if (hint !== "") said.append(element("span", { class: "hint" }, ` ${hint}`));
    const isCheckbox = input.getAttribute("type") === "checkbox";
    const parts = isCheckbox ? [input, said] : [said, input];
    this.element = element("div", { class: isCheckbox ? "field check" : "field" }, ...parts, this.problem);
  }

  /** @returns {string} the value without surrounding spaces */
  get value() {
    return this.input.value.trim();
  }

  /** @param {string} text message, or empty to remove it */
  set error(text) {
    this.problem.replaceChildren(text);
    this.input.toggleAttribute("aria-invalid", text !== "");
  }
}

/**
 * Create a field for an optional number.
 * @param {string} label
 * @param {string} hint
 * @param {Object<string, string|number>} bounds min, max, step and placeholder
 * @returns {Field}
 */
export function numberField(label, hint, bounds) {
  return new Field(label, element("input", { type: "number", inputmode: "decimal", ...bounds }), hint);
}

/**
 * Create a list to choose from.
 * @param {string} label
 * @param {string} none what is shown for an empty value
 * @param {(string|number)[]} values
 * @returns {Field}
 */
export function choiceField(label, none, values) {
  const options = values.map((value) => element("option", { value }, value));
  return new Field(label, element("select", {}, element("option", { value: "" }, none), ...options));
}

/**
 * Create a checkbox.
 * @param {string} label
 * @param {boolean} isOn
 * @returns {Field}
 */
export function checkField(label, isOn) {
  return new Field(label, element("input", { type: "checkbox", checked: isOn }));
}
