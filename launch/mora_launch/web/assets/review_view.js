/** The review of a job: the candidate and the possible decisions. Hidden while no candidate waits. */

import { ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { Field, numberField } from "./field.js";
import { MediaView } from "./media_view.js";
import { Reviewer } from "./reviewer.js";
import { capitalised, stageWords } from "./stage_words.js";

/** Shows one candidate at a time, with the version of its session. */
export class ReviewView {
  #job = null;
  #version = null;
  #media = new MediaView("The candidate");
  #wasDecidedHere = false;
  #asked = ""; // the job's own prompt, which is already on the page
  #prompt = "";

  /**
   * @param {Api} api
   * @param {Object} limits of `/v1/tasks`; without `edit_strength` an adjustment has no strength
   * @param {function(): void} whenDecided called after a decision on this page
   */
  constructor(api, limits, whenDecided) {
    this.api = api;
    this.strength = limits.edit_strength;
    this.whenDecided = whenDecided;
    this.accepted = element("p", { class: "hint" });
    this.title = element("h3", {});
    this.prompt = element("p", { class: "prompt" });
    this.problem = element("p", { class: "error", role: "alert" });
    this.words = element("div", { class: "words" });
    this.reviewer = new Reviewer();
    this.#makeButtons();
    this.waiting = element(
      "div",
      { hidden: true },
      this.title, this.accepted, this.#media.element, this.prompt,
      element("div", { class: "actions" }, this.accept, this.again, this.edit, this.adjust, this.back, this.stop),
      this.words, this.reviewer.element,
    );
    this.resume = button("Resume the review", () => this.#resume(), { class: "primary", hidden: true });
    this.element = element("div", { class: "review" }, this.waiting, this.resume, this.problem);
  }

  /**
   * Show the waiting candidate of a job, if there is one.
   * @param {Object} job
   */
  async show(job) {
    this.#job = job.id;
    this.#asked = job.prompt;
    this.resume.hidden = job.review !== "stopped" || job.status !== "failed";
    if (job.review !== "waiting") {
      this.#hide();
      return;
    }
    try {
      await this.#look(job.id);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error; // 404: another reviewer was faster
    }
  }

  async #look(id) {
    const review = await this.api.json(`${this.#path}?reviewer=${encodeURIComponent(this.reviewer.name)}`);
    if (this.#job === id) this.reviewer.show(review.reviewers);
    if (this.#job !== id || review.candidate === null || review.version === this.#version) return;
    const blob = review.candidate.kind === "text" ? null : await this.api.blob(`${this.#path}/content`);
    if (this.#job === id) this.#offer(review, blob);
  }

  /** Show no job. */
  clear() {
    this.#job = null;
    this.#hide();
    this.#wasDecidedHere = false;
    this.resume.hidden = true;
    this.problem.replaceChildren();
  }

  /** @returns {boolean} whether a decision made on this page was the last one, and the focus is still where it was */
  get hasFocusToGive() {
    const focused = document.activeElement; // the body, once the pressed button is hidden
    return this.#wasDecidedHere && (focused === document.body || this.element.contains(focused));
  }

  get #path() {
    return `/v1/videos/${encodeURIComponent(this.#job)}/review`;
  }

  #makeButtons() {
    this.accept = button("Accept", () => this.#decide({ action: "accept" }), { class: "primary" });
    this.again = button("Again", () => this.#decide({ action: "again" }));
    this.edit = button("Edit the prompt", () => this.#ask("edit"));
    this.adjust = button("Adjust the picture", () => this.#ask("adjust"));
    this.back = button("Back", () => this.#decide({ action: "back" }));
    this.stop = button("Stop", () => this.#decide({ action: "stop" }));
  }

  #hide() {
    this.#version = null;
    this.waiting.hidden = true;
    this.words.replaceChildren();
    this.#media.clear();
  }

  #offer(review, blob) {
    const { candidate, accepted, version } = review;
    this.#version = version;
    this.title.replaceChildren(`${capitalised(stageWords(candidate.stage))} waits for you`);
    const stages = accepted.map((each) => each.stage).join(", ");
    this.accepted.replaceChildren(stages === "" ? "" : `Accepted: ${stages}`);
    this.#prompt = candidate.prompt;
    this.prompt.replaceChildren(blob !== null && candidate.prompt === this.#asked ? "" : candidate.prompt);
    this.problem.replaceChildren();
    this.words.replaceChildren();
    if (blob === null) this.#media.clear();
    else this.#media.show(blob);
    this.adjust.hidden = blob === null || !blob.type.startsWith("image/");
    this.back.hidden = accepted.length === 0;
    this.waiting.hidden = false;
    if (this.#wasDecidedHere) this.accept.focus({ preventScroll: true }); // keeps the focus for keyboard users
    this.#wasDecidedHere = false;
  }

  #ask(action) {
    const isEdit = action === "edit";
    const prompt = new Field(isEdit ? "New prompt" : "What to change", element("textarea", { rows: 2 }));
    if (isEdit) prompt.input.value = this.#prompt;
    const hasStrength = !isEdit && this.strength !== null;
    const bounds = { min: 0.05, max: 1, step: "any", placeholder: this.strength };
    const strength = numberField("Strength", "up to 1", bounds);
    const send = button(isEdit ? "Make it from this prompt" : "Adjust", () => {
      const said = { action, prompt: prompt.value };
      return this.#decide(hasStrength && strength.value !== "" ? { ...said, strength: Number(strength.value) } : said);
    }, { class: "primary" });
    const never = button("Close", () => {
      this.words.replaceChildren();
      this[action].focus();
    });
    this.words.replaceChildren(
      prompt.element, ...(hasStrength ? [strength.element] : []), element("div", { class: "actions" }, send, never),
    );
    prompt.input.focus();
  }

  async #decide(said) {
    await this.#say(this.#path, { ...said, version: this.#version, reviewer: this.reviewer.name });
  }

  async #resume() {
    await this.#say(`${this.#path}/resume`, {});
  }

  async #say(path, body) {
    this.problem.replaceChildren();
    try {
      await this.api.json(path, "POST", body);
      this.#wasDecidedHere = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.replaceChildren(error.message);
    }
    this.whenDecided();
  }
}
