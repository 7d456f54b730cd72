/** One picture that was made, and what can be done with it. */

import { button, element } from "./elements.js";
import { MediaView, download } from "./media_view.js";

/** A picture with its seed and its actions. */
export class PictureView {
  #view;

  /**
   * @param {Blob} blob
   * @param {number} seed
   * @param {string} prompt
   * @param {TaskTabs} tabs
   */
  constructor(blob, seed, prompt, tabs) {
    this.#view = new MediaView(prompt);
    this.#view.show(blob);
    const make = (label, act) => button(label, act, { class: "small" });
    this.element = element(
      "figure", {}, this.#view.element, element("figcaption", { class: "hint" }, `seed ${seed}`),
      element(
        "div", { class: "actions" },
        make("Download", () => download(blob, `picture-${seed}.png`)),
        make("Again", () => again(prompt, tabs)),
        make("Animate this", () => animate(blob, prompt, tabs)),
      ),
    );
  }

  /** Remove it and free the picture. */
  remove() {
    this.#view.clear();
    this.element.remove();
  }
}

/** Fill the form in again; without a seed in it the next picture is another one. */
function again(prompt, tabs) {
  const form = tabs.select("picture");
  form.fill(prompt, []);
  form.submit.focus();
}

function animate(blob, prompt, tabs) {
  const form = tabs.select("image_to_video");
  form.fill(null, [{ file: blob, name: prompt.slice(0, 40) }]);
  form.prompt.input.focus();
}
