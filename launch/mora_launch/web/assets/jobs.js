/** All jobs of the server, newest first, polled every few seconds. */

import { ApiError } from "./api.js";
import { Poll } from "./poll.js";

const EVERY_MS = 3000;
const PAGE_LENGTH = 100; // the server's limit

/** Polls the newest page of the list; fetches older pages on request. */
export class Jobs {
  #poll;
  #older = [];
  #hasMore = false;
  #newest = [];

  /**
   * @param {Api} api
   * @param {function(Object[], boolean): void} show called with all known jobs, and whether there are older ones
   * @param {function(string): void} showFault called with the reason for a missing answer, or an empty text
   */
  constructor(api, show, showFault) {
    this.api = api;
    this.show = show;
    this.showFault = showFault;
    this.#poll = new Poll(() => this.#look(), EVERY_MS);
  }

  /** Start polling. */
  start() {
    this.#poll.start();
  }

  /** Poll immediately, because something has changed. */
  lookNow() {
    this.#poll.start();
  }

  /** Fetch the page after the oldest known job. */
  async loadOlder() {
    const last = (this.#older.at(-1) ?? this.#newest.at(-1))?.id;
    if (last === undefined || !this.#hasMore) return;
    await this.#told(async () => {
      const page = await this.api.json(`/v1/videos?limit=${PAGE_LENGTH}&after=${encodeURIComponent(last)}`);
      this.#older.push(...page.data);
      this.#hasMore = page.has_more;
    });
  }

  async #look() {
    await this.#told(async () => {
      const page = await this.api.json(`/v1/videos?limit=${PAGE_LENGTH}`);
      if (!page.has_more) this.#older = []; // the newest page has all jobs
      this.#newest = page.data;
      if (this.#older.length === 0) this.#hasMore = page.has_more;
    });
  }

  async #told(ask) {
    try {
      await ask();
      this.showFault("");
      this.show(this.#all(), this.#hasMore);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.showFault(error.message);
    }
  }

  #all() {
    const known = new Set(this.#newest.map((job) => job.id));
    return [...this.#newest, ...this.#older.filter((job) => !known.has(job.id))];
  }
}
