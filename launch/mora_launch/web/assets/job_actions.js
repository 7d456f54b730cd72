/** Actions on an ended job: download it, make it again, use its video for another task. */

import { ApiError } from "./api.js";
import { button } from "./elements.js";
import { download } from "./media_view.js";

/** Makes the buttons of a job. */
export class JobActions {
  /**
   * @param {Api} api
   * @param {TaskTabs} tabs
   * @param {Map<string, Blob[]>} sent files that this page sent with a job, by id
   */
  constructor(api, tabs, sent) {
    this.api = api;
    this.tabs = tabs;
    this.sent = sent;
  }

  /**
   * Create the buttons of a finished video.
   * @param {Object} job
   * @param {HTMLElement} problem shows the error of a failed action
   * @returns {HTMLElement[]}
   */
  of(job, problem) {
    const make = (label, act) => button(label, () => told(act, problem), { class: "small" });
    const use = (label, task) => make(label, () => this.#use(job, task));
    return [
      make("Download", () => this.#download(job)),
      this.again(job),
      use("Extend this", "extend"),
      use("Edit this", "edit"),
      use("Connect with…", "connect"),
    ];
  }

  /**
   * Create a button that fills the form with the job's request, to make it again with another seed.
   * @param {Object} job
   * @returns {HTMLElement}
   */
  again(job) {
    return button("Again", () => {
      const form = this.tabs.select(job.task);
      const files = this.sent.get(job.id) ?? [];
      form.fill(job.prompt, files.map((file) => ({ file, name: file.name ?? "as before" })));
      form.submit.focus();
    }, { class: "small" });
  }

  /**
   * Fetch a finished video.
   * @param {Object} job
   * @returns {Promise<Blob>}
   */
  video(job) {
    return this.api.blob(`/v1/videos/${encodeURIComponent(job.id)}/content`);
  }

  async #download(job) {
    const blob = await this.video(job);
    download(blob, `${job.id}.${blob.type.split("/")[1] ?? "mp4"}`);
  }

  async #use(job, task) {
    const blob = await this.video(job);
    const form = this.tabs.select(task);
    form.add(blob, job.prompt.slice(0, 40));
    form.askForRest();
  }
}

/** Run an action and show its error: the video may have expired. */
async function told(act, problem) {
  problem.replaceChildren();
  try {
    await act();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    problem.replaceChildren(error.message);
  }
}
