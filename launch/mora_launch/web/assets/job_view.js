/** The job in the page's address: its progress, review and video. */

import { ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { openJob } from "./job_address.js";
import { madeOf } from "./job_card.js";
import { statusWords } from "./job_list.js";
import { MediaView } from "./media_view.js";
import { Poll } from "./poll.js";
import { ReviewView } from "./review_view.js";
import { capitalised } from "./stage_words.js";
import { StageRow } from "./stage_row.js";

const EVERY_MS = 700;

/** Shows one job and polls it until it has ended. */
export class JobView {
  #id = null;
  #status = "";
  #poll = new Poll(() => this.#look(), EVERY_MS);
  #media = new MediaView("The finished video");

  /**
   * @param {Api} api
   * @param {Map<string, string>} names of tasks by id
   * @param {Object} limits of `/v1/tasks`
   * @param {JobActions} actions
   * @param {function(): void} whenEnded called when a job ends or is deleted
   */
  constructor(api, names, limits, actions, whenEnded) {
    this.api = api;
    this.names = names;
    this.actions = actions;
    this.whenEnded = whenEnded;
    this.title = element("h2", {});
    this.prompt = element("p", { class: "prompt" });
    this.status = element("p", { class: "status", role: "status" });
    this.problem = element("p", { class: "error", role: "alert" });
    this.buttons = element("div", { class: "actions" });
    this.review = new ReviewView(api, limits, () => this.#poll.start());
    this.row = new StageRow(api, (blob) => this.#showSoFar(blob));
    this.empty = element("p", { class: "nothing" }, "Start a task or run an example. Its result appears here.");
    this.shown = element(
      "div",
      { class: "job", hidden: true },
      this.title, this.prompt, this.status, this.problem, this.row.element, this.review.element,
      this.#media.element, this.buttons,
    );
    this.element = element("div", {}, this.empty, this.shown);
  }

  /** @param {string|null} id */
  open(id) {
    this.#poll.stop();
    this.#id = id;
    this.#status = "";
    this.#media.clear();
    this.row.clear();
    this.review.clear();
    for (const part of [this.title, this.prompt, this.status, this.problem, this.buttons]) part.replaceChildren();
    this.empty.hidden = id !== null;
    this.shown.hidden = id === null;
    document.title = "Mora";
    if (id !== null) this.#poll.start();
  }

  get #path() {
    return `/v1/videos/${encodeURIComponent(this.#id)}`;
  }

  async #look() {
    const id = this.#id;
    try {
      const job = await this.api.json(this.#path);
      if (id === this.#id) await this.#show(job);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (id !== this.#id) return;
      this.problem.replaceChildren(error.message);
      if (error.status === 404) this.#gone();
    }
  }

  #gone() {
    this.#poll.stop();
    this.review.clear();
    this.#media.element.hidden = true;
    this.buttons.replaceChildren();
    this.status.replaceChildren();
  }

  async #show(job) {
    const words = statusWords(job);
    const task = this.names.get(job.task) ?? job.task;
    setText(this.title, task);
    setText(this.prompt, job.prompt);
    setText(this.status, job.status === "completed" ? madeOf(job) : `${capitalised(words)} · seed ${job.seed}`);
    setText(this.problem, job.error?.message ?? "");
    document.title = `${words} · Mora`;
    const status = `${job.status} ${job.review}`;
    const hasEnded = job.status === "completed" || (job.status === "failed" && job.review !== "stopped");
    const hasChanged = status !== this.#status;
    this.#status = status;
    if (hasChanged) this.#changed(job);
    this.#media.element.hidden = job.review === "waiting" || job.status === "failed";
    if (hasChanged || !hasEnded) await this.row.look(job.id, hasEnded);
    await this.review.show(job);
    if (hasEnded && job.id === this.#id) {
      this.#poll.stop();
      this.whenEnded();
    }
  }

  /** Show the picture of the latest stage until the video is there. */
  #showSoFar(blob) {
    if (!this.#status.startsWith("completed")) this.#media.show(blob);
  }

  /** Not awaited, so that a long video does not delay the display of another job. */
  async #showVideo(job) {
    try {
      const blob = await this.actions.video(job);
      if (job.id !== this.#id) return;
      this.#media.show(blob);
      if (this.review.hasFocusToGive) this.#media.element.querySelector("video")?.focus({ preventScroll: true });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (job.id === this.#id) this.problem.replaceChildren(error.message);
    }
  }

  #changed(job) {
    if (job.status === "completed") this.#showVideo(job);
    const isOpen = job.status === "queued" || job.status === "in_progress";
    const label = isOpen ? "Cancel the job" : "Delete";
    const parts = [button(label, () => this.#delete(isOpen), { class: "small" })];
    if (job.status === "completed") parts.unshift(...this.actions.of(job, this.problem));
    else if (!isOpen) parts.unshift(this.actions.again(job));
    this.buttons.replaceChildren(...parts);
  }

  async #delete(isOpen) {
    if (!isOpen && !confirm("Delete this video from the server?")) return;
    try {
      await this.api.json(this.#path, "DELETE");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.replaceChildren(error.message);
      return;
    }
    openJob(null);
    this.whenEnded();
  }
}

function setText(place, text) {
  if (place.textContent !== text) place.replaceChildren(text); // a screen reader reads replaced text again
}
