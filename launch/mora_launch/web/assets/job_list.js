/** Unfinished jobs: queued, in progress, waiting for a reviewer, or stopped at a review. */

import { element } from "./elements.js";
import { addressOf, followLink } from "./job_address.js";
import { stageWords } from "./stage_words.js";

/**
 * Describe the state of a job in words.
 * @param {Object} job
 * @returns {string}
 */
export function statusWords(job) {
  if (job.review === "stopped") return "stopped, can be resumed";
  if (job.review === "waiting") return `${stageWords(job.stage)} waits for a reviewer`;
  if (job.status === "queued") return "queued";
  if (job.status === "in_progress") return job.stage === "" ? "starting" : `making ${stageWords(job.stage)}`;
  return job.status === "completed" ? "done" : "failed";
}

function isOpen(job) {
  return job.status === "queued" || job.status === "in_progress" || job.review === "stopped";
}

/** Links to the jobs, which open in this page. */
export class JobList {
  #items = new Map();

  /** @param {Map<string, string>} names of tasks by id */
  constructor(names) {
    this.names = names;
    this.list = element("ul", { class: "jobs" });
    this.element = element("div", {}, element("h2", {}, "In progress"), this.list);
  }

  /** @returns {boolean} */
  get isEmpty() {
    return this.#items.size === 0;
  }

  /** @param {Object[]} jobs all, newest first */
  show(jobs) {
    const open = jobs.filter(isOpen);
    const ids = new Set(open.map((job) => job.id));
    for (const [id, item] of this.#items) {
      if (ids.has(id)) continue;
      item.element.remove();
      this.#items.delete(id);
    }
    for (const [place, job] of open.entries()) {
      if (!this.#items.has(job.id)) this.#insert(job, place);
      const isWorking = job.status === "in_progress" && job.review !== "waiting";
      const words = isWorking ? `${statusWords(job)}, ${job.progress} %` : statusWords(job);
      this.#items.get(job.id).status.replaceChildren(words);
    }
  }

  #insert(job, place) {
    const status = element("span", { class: "hint" });
    const text = `${this.names.get(job.task) ?? job.task}: ${job.prompt.slice(0, 120)}`;
    const link = element("a", { href: addressOf(job.id) }, text);
    link.addEventListener("click", (event) => followLink(event, job.id));
    const made = element("li", {}, link, " ", status);
    this.#items.set(job.id, { element: made, status });
    this.list.insertBefore(made, this.list.children[place] ?? null);
  }
}
