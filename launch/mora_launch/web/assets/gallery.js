/** Finished videos, newest first. */

import { button, element } from "./elements.js";
import { Comparison } from "./comparison.js";
import { JobCard } from "./job_card.js";

const AT_FIRST = 12;

/** Cards of finished videos; "Show more" adds older ones. */
export class Gallery {
  #cards = new Map();
  #numShown = AT_FIRST;
  #jobs = [];
  #mayHaveMore = false;

  /**
   * @param {Api} api
   * @param {Map<string, string>} names of tasks by id
   * @param {JobActions} actions
   * @param {function(): Promise<void>} loadOlder
   */
  constructor(api, names, actions, loadOlder) {
    this.api = api;
    this.names = names;
    this.actions = actions;
    this.comparison = new Comparison(actions);
    this.grid = element("div", { class: "gallery" });
    this.empty = element("p", { class: "hint" }, "There are no videos yet. Run an example.");
    this.more = button("Show more", () => this.#showMore(loadOlder));
    this.element = element("div", {}, element("h2", {}, "Finished"), this.comparison.status, this.empty, this.grid, this.more);
  }

  /**
   * Update the cards; unchanged ones are not touched.
   * @param {Object[]} jobs all, newest first
   * @param {boolean} mayHaveMore whether the server has older ones
   */
  show(jobs, mayHaveMore) {
    this.#jobs = jobs.filter((job) => job.status === "completed");
    this.#mayHaveMore = mayHaveMore;
    const shown = this.#jobs.slice(0, this.#numShown);
    const ids = new Set(shown.map((job) => job.id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.remove();
      this.comparison.forget(id);
      this.#cards.delete(id);
    }
    for (const [place, job] of shown.entries()) {
      if (this.#cards.has(job.id)) continue;
      const compare = this.comparison.toggle(job);
      const card = new JobCard(this.api, job, this.names.get(job.task) ?? job.task, this.actions, compare);
      this.#cards.set(job.id, card);
      this.grid.insertBefore(card.element, this.grid.children[place] ?? null);
    }
    this.empty.hidden = shown.length > 0;
    this.more.hidden = this.#jobs.length <= this.#numShown && !mayHaveMore;
  }

  async #showMore(loadOlder) {
    this.#numShown += AT_FIRST;
    if (this.#jobs.length < this.#numShown) await loadOlder();
    this.show(this.#jobs, this.#mayHaveMore);
  }
}
