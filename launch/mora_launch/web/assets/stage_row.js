/** The stages of a job as a row of frames: each fills while it is made, and shows its picture once it is there. */

import { ApiError } from "./api.js";
import { element } from "./elements.js";

/** One frame of the row. */
class StageFrame {
  #address = null;
  #version = null;

  constructor() {
    this.picture = element("div", { class: "frame" });
    this.progress = element("progress", { max: 1, "aria-hidden": "true" });
    this.name = element("span", {});
    this.element = element("li", { class: "stage" }, this.picture, this.progress, this.name);
  }

  /**
   * Show the state of the stage.
   * @param {Object|null} stage of the server's list; null if it has not begun
   * @param {function(): Promise<Blob>} fetchPicture
   */
  show(stage, fetchPicture) {
    const isDone = stage?.status === "completed";
    this.element.dataset.status = stage?.status ?? "waiting";
    this.name.textContent = stage?.name ?? "";
    this.progress.value = isDone ? 1 : stepsDone(stage);
    this.element.setAttribute("aria-label", describe(stage));
    if (stage === null || stage.picture === null) this.#write(stage?.text ?? "");
    else if (stage.picture !== this.#version) this.#fetch(stage, fetchPicture);
  }

  /** Free the picture. */
  remove() {
    this.#write("");
    this.element.remove();
  }

  async #fetch(stage, fetchPicture) {
    this.#version = stage.picture;
    let blob = null;
    try {
      blob = await fetchPicture();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#version = null; // the next look tries again
    }
    if (blob === null || this.#version !== stage.picture) return;
    this.#free();
    this.#address = URL.createObjectURL(blob);
    this.picture.replaceChildren(element("img", { src: this.#address, alt: "" }));
  }

  #write(text) {
    this.#version = null;
    this.#free();
    this.picture.title = text;
    this.picture.replaceChildren(...(text === "" ? [] : [element("p", {}, text)]));
  }

  #free() {
    if (this.#address !== null) URL.revokeObjectURL(this.#address);
    this.#address = null;
  }
}

/** The row of one job. */
export class StageRow {
  #frames = [];
  #api;
  #whenPicture;
  #job = null;

  /**
   * @param {Api} api
   * @param {function(Blob): void} whenPicture called with the picture of the latest stage that has one
   */
  constructor(api, whenPicture) {
    this.#api = api;
    this.#whenPicture = whenPicture;
    this.element = element("ol", { class: "stages", "aria-label": "Stages" });
  }

  /**
   * Fetch and show the stages of a job.
   * @param {string} job
   * @param {boolean} hasEnded the row then needs no place for stages that are still to come
   */
  async look(job, hasEnded) {
    if (this.#job !== job) this.clear();
    this.#job = job;
    const path = `/v1/videos/${encodeURIComponent(job)}/stages`;
    const { data, expected } = await this.#api.json(path);
    if (this.#job !== job) return;
    this.element.hidden = hasEnded && data.length === 0; // of a server that was restarted meanwhile
    while (this.#frames.length > expected) this.#frames.pop().remove();
    while (this.#frames.length < expected) this.#add();
    const latest = data.findLastIndex((stage) => stage.picture !== null);
    this.#frames.forEach((frame, place) => {
      frame.show(data[place] ?? null, async () => {
        const blob = await this.#api.blobIfAny(`${path}/${place}/content`);
        if (blob !== null && place === latest && this.#job === job) this.#whenPicture(blob);
        return blob;
      });
    });
  }

  /** Show no job. */
  clear() {
    this.#job = null;
    for (const frame of this.#frames) frame.remove();
    this.#frames = [];
    this.element.hidden = false;
  }

  #add() {
    const frame = new StageFrame();
    this.#frames.push(frame);
    this.element.append(frame.element);
  }
}

function stepsDone(stage) {
  return stage === null || stage.num_steps === 0 ? 0 : stage.step / stage.num_steps;
}

function describe(stage) {
  if (stage === null) return "a stage that has not begun";
  if (stage.status === "completed") return `${stage.name}, done`;
  return stage.num_steps === 0 ? stage.name : `${stage.name}, step ${stage.step} of ${stage.num_steps}`;
}
