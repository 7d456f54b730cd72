/** Two finished videos side by side, which play in step. */

import { ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { madeOf } from "./job_card.js";
import { MediaView } from "./media_view.js";

const MOST_APART_S = 0.08; // two frames of a film; a larger distance is corrected

/** Chooses two videos of the gallery and shows them. */
export class Comparison {
  #chosen = [];
  #toggles = new Map();
  #actions;

  /** @param {JobActions} actions fetches the videos */
  constructor(actions) {
    this.#actions = actions;
    this.status = element("p", { class: "hint", role: "status" });
  }

  /**
   * Create the button that chooses a video.
   * @param {Object} job
   * @returns {HTMLElement}
   */
  toggle(job) {
    const made = button("Compare", () => this.#choose(job), { class: "small", "aria-pressed": "false" });
    this.#toggles.set(job.id, made);
    return made;
  }

  /**
   * Forget a video that is not shown any more.
   * @param {string} id
   */
  forget(id) {
    this.#toggles.delete(id);
    this.#chosen = this.#chosen.filter((job) => job.id !== id);
    this.#tell();
  }

  async #choose(job) {
    const isChosen = this.#chosen.some((each) => each.id === job.id);
    this.#chosen = isChosen ? this.#chosen.filter((each) => each.id !== job.id) : [...this.#chosen, job];
    this.#tell();
    if (this.#chosen.length < 2) return;
    const pair = this.#chosen;
    this.#chosen = [];
    try {
      await this.#show(pair);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.status.textContent = error.message;
    } finally {
      this.#tell();
      this.#toggles.get(job.id)?.focus();
    }
  }

  #tell() {
    const ids = new Set(this.#chosen.map((job) => job.id));
    for (const [id, toggle] of this.#toggles) toggle.setAttribute("aria-pressed", String(ids.has(id)));
    if (ids.size === 1) this.status.textContent = "Choose another video to compare it with.";
    else if (this.status.textContent.startsWith("Choose")) this.status.textContent = "";
  }

  async #show(pair) {
    const blobs = await Promise.all(pair.map((job) => this.#actions.video(job)));
    const views = pair.map((job) => new MediaView(job.prompt));
    const sides = pair.map((job, place) => element(
      "figure", {}, views[place].element,
      element("figcaption", {}, element("strong", {}, job.prompt), element("span", { class: "hint" }, madeOf(job))),
    ));
    const close = button("Close", () => dialog.close());
    const actions = element("div", { class: "actions" });
    const dialog = element(
      "dialog", { class: "comparison", "aria-label": "Two videos side by side" },
      element("div", { class: "sides" }, ...sides), actions,
    );
    document.body.append(dialog);
    views.forEach((view, place) => view.show(blobs[place]));
    const videos = views.map((view) => view.element.querySelector("video")).filter((video) => video !== null);
    const inStep = videos.length === 2 ? new InStep(videos) : null;
    actions.append(...(inStep === null ? [] : inStep.controls), close);
    dialog.showModal();
    (inStep?.controls[0] ?? close).focus();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    inStep?.end();
    for (const view of views) view.clear();
    dialog.remove();
  }
}

/** Plays two videos at the same time; the longer one leads, and both begin again at its end. */
class InStep {
  #leader;
  #other;
  #timer = 0;

  /** @param {HTMLVideoElement[]} videos */
  constructor(videos) {
    for (const video of videos) {
      video.controls = false;
      video.loop = false;
      video.autoplay = false;
      video.pause();
    }
    [this.#leader, this.#other] = videos;
    this.play = button("Pause", () => this.#toggle(), { class: "primary" });
    this.place = element("input", { type: "range", min: 0, max: 1, step: "any", "aria-label": "Position" });
    this.place.addEventListener("input", () => this.#seek(Number(this.place.value)));
    this.controls = [this.play, this.place];
    Promise.all(videos.map(isLoaded)).then(() => this.#begin(videos));
  }

  /** Stop following the videos. */
  end() {
    cancelAnimationFrame(this.#timer);
    this.#leader.pause();
    this.#other.pause();
  }

  #begin(videos) {
    const [first, second] = videos;
    [this.#leader, this.#other] = first.duration >= second.duration ? [first, second] : [second, first];
    this.place.max = this.#leader.duration;
    this.#leader.addEventListener("ended", () => this.#again());
    this.#again();
    this.#follow();
  }

  #again() {
    this.#seek(0);
    this.#start();
  }

  #start() {
    this.play.textContent = "Pause";
    for (const video of [this.#leader, this.#other]) {
      video.play().catch(() => {
        // the dialog has been closed meanwhile
      });
    }
  }

  #toggle() {
    if (this.#leader.paused) {
      this.#start();
      return;
    }
    this.play.textContent = "Play";
    this.#leader.pause();
    this.#other.pause();
  }

  #seek(atS) {
    this.#leader.currentTime = atS;
    this.#other.currentTime = Math.min(atS, this.#other.duration);
    this.place.value = atS;
  }

  #follow() {
    const atS = Math.min(this.#leader.currentTime, this.#other.duration);
    if (!this.#other.ended && Math.abs(this.#other.currentTime - atS) > MOST_APART_S) this.#other.currentTime = atS;
    if (document.activeElement !== this.place || !this.#leader.paused) this.place.value = this.#leader.currentTime;
    this.#timer = requestAnimationFrame(() => this.#follow());
  }
}

function isLoaded(video) {
  if (video.readyState >= 1) return Promise.resolve();
  return new Promise((resolve) => video.addEventListener("loadedmetadata", resolve, { once: true }));
}
