/** A picture or video that was fetched with the token, shown from memory. */

import { element } from "./elements.js";

/** Shows one file at a time; the one before is given back to the browser. */
export class MediaView {
  #address = null;

  /** @param {string} label what is shown, for those who cannot see it */
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
    video.muted = true; // else no browser plays it by itself
    video.autoplay = true;
    video.playsInline = true;
    this.element.append(video);
  }

  /** Show nothing. */
  clear() {
    this.element.replaceChildren();
    if (this.#address !== null) URL.revokeObjectURL(this.#address);
    this.#address = null;
  }
}

/**
 * Save a file where the person's downloads go.
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser has begun to read it by then
}
