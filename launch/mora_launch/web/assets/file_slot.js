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
    this.request = element("p", { class: "hint", role: "status" });
    const remove = button("Remove", () => this.set(null), { class: "small" });
    this.chosen = element("div", { class: "chosen", hidden: true }, this.#view.element, this.name, remove);
    this.element = element("div", { class: "slot" }, this.request, this.field.element, this.chosen);
  }

  /**
   * Ask the user for the file, and move the focus to its input.
   * @param {string} text
   */
  ask(text) {
    this.request.replaceChildren(text);
    this.field.input.focus();
  }

  /**
   * Set or remove the file.
   * @param {Blob|null} file
   * @param {string} name name to show
   */
  set(file, name = "") {
    this.file = file;
    this.field.error = "";
    this.request.replaceChildren();
    this.chosen.hidden = file === null;
    this.name.replaceChildren(name);
    if (file === null) this.#view.clear();
    else this.#view.show(file);
    this.chosen.querySelector("video")?.removeAttribute("controls"); // there is no room for them
    this.#tellInput(file, name);
  }

  /** Let the browser's input show the name of a file that was not chosen there, instead of "No file chosen". */
  #tellInput(file, name) {
    const { input } = this.field;
    if (file === null) {
      input.value = "";
    } else if (input.files[0] !== file) {
      const transfer = new DataTransfer();
      transfer.items.add(new File([file], name, { type: file.type }));
      input.files = transfer.files;
    }
  }

  #fromDisk() {
    const [file] = this.field.input.files;
    this.set(file ?? null, file?.name ?? "");
  }
}
