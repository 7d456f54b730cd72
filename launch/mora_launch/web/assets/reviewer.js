/** The name under which this page reviews, and who else is looking at a review. */

import { element } from "./elements.js";
import { Field } from "./field.js";

const KEY = "mora-reviewer";
const MOST_LENGTH = 60; // the server's limit

/** The name, which is stored for this tab. */
export class Reviewer {
  constructor() {
    const name = sessionStorage.getItem(KEY) ?? `Reviewer ${crypto.getRandomValues(new Uint16Array(1))[0]}`;
    this.#store(name);
    this.field = new Field("Your name", element("input", { type: "text", maxlength: MOST_LENGTH, autocomplete: "name" }));
    this.field.input.value = name;
    this.field.input.addEventListener("change", () => this.#rename());
    this.others = element("p", { class: "hint", role: "status" });
    this.element = element("div", { class: "reviewers" }, this.field.element, this.others);
  }

  /** @returns {string} */
  get name() {
    return sessionStorage.getItem(KEY);
  }

  /**
   * Show who else is looking.
   * @param {string[]} names of all, this page's own too
   */
  show(names) {
    const others = names.filter((name) => name !== this.name);
    const text = others.length === 0 ? "" : `${listed(others)} ${others.length === 1 ? "is" : "are"} looking at this, too.`;
    if (this.others.textContent !== text) this.others.textContent = text;
  }

  #rename() {
    const name = this.field.value.slice(0, MOST_LENGTH);
    if (name === "") this.field.input.value = this.name;
    else this.#store(name);
  }

  #store(name) {
    sessionStorage.setItem(KEY, name);
  }
}

function listed(names) {
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
