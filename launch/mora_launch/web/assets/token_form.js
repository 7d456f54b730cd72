/** The form that asks for the token when the server refuses a request without it. */

import { element } from "./elements.js";

const WRONG = "The token that was sent is not this server’s.";

/** One form for all requests that wait. */
export class TokenForm {
  constructor() {
    this.waiting = null;
  }

  /**
   * Ask for the token; several who ask at once share one form.
   * @param {boolean} wasGiven whether one was sent and refused
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
      element("h2", {}, "This server asks for its token"),
      element("p", {}, "Ask whoever started the server: the link that it printed ends in the token."),
      element("p", { class: "error", role: "alert" }, wasGiven ? WRONG : ""),
      element("label", { for: "token" }, "Token"),
      input,
      element("button", { class: "primary" }, "Continue"),
    );
    const dialog = element("dialog", { class: "token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing can be done without it
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        dialog.remove();
        resolve(input.value.trim());
      });
    });
  }
}
