/** One finished video of the gallery. */

import { ApiError } from "./api.js";
import { element } from "./elements.js";
import { addressOf, followLink } from "./job_address.js";
import { MediaView } from "./media_view.js";

/** A thumbnail that plays when it is pressed, what it was made of, and what can be done with it. */
export class JobCard {
  #view;

  /**
   * @param {Api} api
   * @param {Object} job
   * @param {string} task its name
   * @param {JobActions} actions
   */
  constructor(api, job, task, actions) {
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
      element("div", { class: "actions" }, ...actions.of(job, this.problem)),
      this.problem,
    );
    this.#shown(api.blob(`/v1/videos/${encodeURIComponent(job.id)}/content?variant=thumbnail`));
  }

  /** Take the card away and give its picture back. */
  remove() {
    this.#view.clear();
    this.element.remove();
  }

  async #play(button, actions, job) {
    button.replaceWith(this.#view.element); // a video has controls of its own, which a button may not hold
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
 * What a finished video was made of, in one line.
 * @param {Object} job
 * @returns {string}
 */
export function madeOf(job) {
  return `seed ${job.seed} · ${Number(job.seconds).toFixed(1)} s · ${job.size.replace("x", " × ")} · ${job.model}`;
}
