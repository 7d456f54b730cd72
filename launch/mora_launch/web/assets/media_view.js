/** Shows a picture or video that was fetched with the token, from memory. */

import { element } from "./elements.js";

/** Shows one file at a time and frees the one before. */
export class MediaView {
  #address = null;

  /** @param {string} label description for screen readers */
  constructor(label) {
    this.label = label;
    this.element = element("div", { class: "media" });
  }

  /** @param {Blob} blob */
  show(blob) {
    this.clear();
    this.#address = URL.createObjectURL(blob);
    if (blob.type.startsWith("image/")) {
      this.element.append(element("img", { src: this.#address, alt: this.label }));
      return;
    }
    const video = element("video", { src: this.#address, controls: true, loop: true, "aria-label": this.label });
    video.muted = true; // browsers play only muted videos automatically
    video.autoplay = true;
    video.playsInline = true;
    this.element.append(video);
  }

  /** Remove the file. */
  clear() {
    this.element.replaceChildren();
    if (this.#address !== null) URL.revokeObjectURL(this.#address);
    this.#address = null;
  }
}

/**
 * Save a file to the user's downloads.
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // by then the browser has started to read it
}
