/** The form that asks for the token after the server has refused a request. */

import { element } from "./elements.js";

const WHERE =
  "Open the link that the server printed when it started, or ask the person who runs the server for a token.";
const WRONG = "The token that was sent is not this server’s.";

/** One form for all waiting requests. */
export class TokenForm {
  constructor() {
    this.waiting = null;
  }

  /**
   * Ask for the token; simultaneous calls share one form.
   * @param {boolean} wasGiven whether a token was sent and refused
   * @returns {Promise<string>}
   */
  ask(wasGiven) {
    this.waiting ??= this.#show(wasGiven).finally(() => {
      this.waiting = null;
    });
    return this.waiting;
  }

  #show(wasGiven) {
    const input = element("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const form = element(
      "form",
      {},
      element("h2", {}, "This server needs a token"),
      element("p", {}, WHERE),
      element("p", { class: "error", role: "alert" }, wasGiven ? WRONG : ""),
      element("label", { for: "token" }, "Token"),
      input,
      element("button", { class: "primary" }, "Continue"),
    );
    const dialog = element("dialog", { class: "token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // the page is useless without it
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        dialog.close(); // gives the focus back to the element that had it
        dialog.remove();
        resolve(input.value.trim());
      });
    });
  }
}
