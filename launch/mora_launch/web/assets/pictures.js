/** Pictures: sends a request for them, and shows them in place of a job. */

import { button, element } from "./elements.js";
import { PictureView } from "./picture_view.js";

const KIND = "image/png"; // what the server sends unless the request asks for another format

/** The pictures of the latest request, which stay until the next one or until the page is closed. */
export class Pictures {
  #request = null;
  #views = [];

  /**
   * @param {Api} api
   * @param {TaskTabs} tabs
   */
  constructor(api, tabs) {
    this.api = api;
    this.tabs = tabs;
    this.isUsed = false;
    this.prompt = element("p", { class: "prompt" });
    this.status = element("p", { class: "status", role: "status" });
    this.grid = element("div", { class: "pictures" });
    this.cancel = button("Cancel", () => this.#request?.abort(), { class: "small" });
    this.buttons = element("div", { class: "actions" }, this.cancel);
    this.element = element(
      "div", { class: "job", hidden: true },
      element("h2", {}, "Picture"), this.prompt, this.status, this.grid, this.buttons,
    );
  }

  /**
   * Request pictures and show them. A request that is still under way is cancelled.
   * @param {FormData} form
   * @returns {Promise<void>} rejected with ApiError if the server refuses the request
   */
  async make(form) {
    this.#request?.abort();
    const request = new AbortController();
    this.#begin(request, form);
    try {
      const answer = await this.api.json("/v1/images/generations", "POST", form, request.signal);
      if (request === this.#request) this.#show(answer.data, form.get("prompt"));
    } catch (error) {
      if (request === this.#request) this.status.replaceChildren(request.signal.aborted ? "Cancelled" : "Failed");
      if (!request.signal.aborted) throw error;
    } finally {
      if (request === this.#request) this.#end();
    }
  }

  #begin(request, form) {
    this.#request = request;
    this.isUsed = true;
    for (const view of this.#views) view.remove();
    this.#views = [];
    const count = Number(form.get("n") ?? 1);
    this.prompt.replaceChildren(form.get("prompt"));
    this.status.replaceChildren(count === 1 ? "Making the picture" : `Making ${count} pictures`);
    this.cancel.hidden = false;
  }

  #show(data, prompt) {
    const revised = data[0].revised_prompt ?? prompt;
    this.status.replaceChildren(revised === prompt ? "Done" : `Done, from the prompt “${revised}”`);
    this.#views = data.map((datum) => new PictureView(bytesOf(datum.b64_json), datum.seed, prompt, this.tabs));
    this.grid.replaceChildren(...this.#views.map((view) => view.element));
  }

  #end() {
    const hadFocus = document.activeElement === this.cancel;
    this.#request = null;
    this.cancel.hidden = true;
    if (hadFocus) this.tabs.focus();
  }
}

function bytesOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: KIND });
}
