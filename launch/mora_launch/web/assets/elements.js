/** Creates elements. Text is always inserted as text: no script of the pages parses markup. */

/**
 * Create an element.
 * @param {string} tag
 * @param {Object<string, string|number|boolean|function(Event): void>} attributes a function listens to the event of
 *   that name; true and false set an attribute or leave it out
 * @param {...(Node|string|null)} children texts are inserted as text; null is left out
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
 * Create a button that cannot be pressed again while its action runs.
 * @param {string} label
 * @param {function(): (Promise<void>|void)} act
 * @param {Object<string, string|boolean>} attributes
 * @returns {HTMLButtonElement}
 */
export function button(label, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", async () => {
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true"); // unlike `disabled` it keeps the focus
    try {
      await act();
    } finally {
      made.removeAttribute("aria-disabled");
    }
  });
  return made;
}
