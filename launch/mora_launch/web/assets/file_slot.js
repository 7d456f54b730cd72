/** The input of one file of a form: a file from disk, or a finished video of the gallery. */

import { button, element } from "./elements.js";
import { Field } from "./field.js";
import { MediaView } from "./media_view.js";

/** Holds one picture or video. */
export class FileSlot {
  #view;

  /**
   * @param {string} label
   * @param {"image"|"video"} kind
   */
  constructor(label, kind) {
    this.file = null;
    this.#view = new MediaView(label);
    this.field = new Field(label, element("input", { type: "file", accept: `${kind}/*` }));
    this.field.input.addEventListener("change", () => this.#fromDisk());
    this.name = element("span", {});
    const remove = button("Remove", () => this.set(null), { class: "small" });
    this.chosen = element("div", { class: "chosen", hidden: true }, this.#view.element, this.name, remove);
    this.element = element("div", { class: "slot" }, this.field.element, this.chosen);
  }

  /**
   * Set or remove the file.
   * @param {Blob|null} file
   * @param {string} name name to show
   */
  set(file, name = "") {
    this.file = file;
    this.field.error = "";
    this.chosen.hidden = file === null;
    this.name.replaceChildren(name);
    if (file === null) this.#view.clear();
    else this.#view.show(file);
    this.chosen.querySelector("video")?.removeAttribute("controls"); // there is no room for them
    if (file === null || !(file instanceof File)) this.field.input.value = "";
  }

  #fromDisk() {
    const [file] = this.field.input.files;
    this.set(file ?? null, file?.name ?? "");
  }
}
