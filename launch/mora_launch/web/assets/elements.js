/** Making elements. Text is always text: nothing here, or anywhere on the pages, reads markup. */

/**
 * A new element.
 * @param {string} tag
 * @param {Object<string, string|number|boolean|function(Event): void>} attributes functions listen to the event of
 *   that name; true and false set an attribute or leave it out
 * @param {...(Node|string|null)} children texts are shown as they are; null is left out
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/**
 * A button that does something and cannot be pressed again meanwhile.
 * @param {string} label
 * @param {function(): (Promise<void>|void)} act
 * @param {Object<string, string|boolean>} attributes
 * @returns {HTMLButtonElement}
 */
export function button(label, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", async () => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true"); // unlike `disabled` it leaves the keyboard where it is
    try {
      await act();
    } finally {
      made.removeAttribute("aria-disabled");
    }
  });
  return made;
}
