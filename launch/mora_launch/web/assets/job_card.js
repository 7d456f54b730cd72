/** One finished video of the gallery. */

import { ApiError } from "./api.js";
import { element } from "./elements.js";
import { addressOf, followLink } from "./job_address.js";
import { MediaView } from "./media_view.js";

/** A thumbnail that plays when pressed, how the video was made, and its actions. */
export class JobCard {
  #view;

  /**
   * @param {Api} api
   * @param {Object} job
   * @param {string} task name of the task
   * @param {JobActions} actions
   * @param {HTMLElement} compare button that chooses the video for a comparison
   */
  constructor(api, job, task, actions, compare) {
    this.#view = new MediaView(job.prompt);
    const label = `Play: ${job.prompt.slice(0, 200)}`;
    const play = element("button", { type: "button", class: "thumbnail", "aria-label": label }, this.#view.element);
    play.addEventListener("click", () => this.#play(play, actions, job));
    const link = element("a", { href: addressOf(job.id) }, job.prompt);
    link.addEventListener("click", (event) => followLink(event, job.id));
    this.problem = element("p", { class: "error", role: "alert" });
    this.element = element(
      "article",
      { class: "card" },
      play,
      element("h3", {}, link),
      element("p", { class: "hint" }, `${task} · ${madeOf(job)}`),
      element("div", { class: "actions" }, ...actions.of(job, this.problem), compare),
      this.problem,
    );
    this.#shown(api.blob(`/v1/videos/${encodeURIComponent(job.id)}/content?variant=thumbnail`));
  }

  /** Remove the card and free its picture. */
  remove() {
    this.#view.clear();
    this.element.remove();
  }

  async #play(button, actions, job) {
    button.replaceWith(this.#view.element); // a button may not contain a video's controls
    await this.#shown(actions.video(job));
    this.#view.element.querySelector("video")?.focus();
  }

  async #shown(blob) {
    try {
      this.#view.show(await blob);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.replaceChildren(error.message);
    }
  }
}

/**
 * Describe how a finished video was made, in one line.
 * @param {Object} job
 * @returns {string}
 */
export function madeOf(job) {
  return `seed ${job.seed} · ${Number(job.seconds).toFixed(1)} s · ${job.size.replace("x", " × ")} · ${job.model}`;
}
