/** Repeated requests, one at a time, so that a late answer cannot overwrite a newer one. */

/** Repeats a request between `start` and `stop`. */
export class Poll {
  #timer = 0;
  #isStarted = false;
  #isLooking = false;
  #isWanted = false;

  /**
   * @param {function(): Promise<void>} look
   * @param {number} everyMs time between the end of one request and the next
   */
  constructor(look, everyMs) {
    this.look = look;
    this.everyMs = everyMs;
  }

  /** Start repeating, at once or as soon as the current request has ended. */
  start() {
    this.#isStarted = true;
    this.#isWanted = true;
    clearTimeout(this.#timer);
    if (!this.#isLooking) this.#run();
  }

  /** Stop repeating. */
  stop() {
    this.#isStarted = false;
    this.#isWanted = false;
    clearTimeout(this.#timer);
  }

  async #run() {
    this.#isLooking = true;
    try {
      do {
        this.#isWanted = false;
        await this.look();
      } while (this.#isWanted);
    } finally {
      this.#isLooking = false;
      if (this.#isStarted) this.#timer = setTimeout(() => this.#run(), this.everyMs);
    }
  }
}
