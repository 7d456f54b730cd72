/** Looking again and again, one look at a time: an answer that is late must not hide a newer one. */

/** A look that is repeated while it is started. */
export class Poll {
  #timer = 0;
  #isStarted = false;
  #isLooking = false;
  #isWanted = false;

  /**
   * @param {function(): Promise<void>} look
   * @param {number} everyMs between the end of a look and the next one
   */
  constructor(look, everyMs) {
    this.look = look;
    this.everyMs = everyMs;
  }

  /** Look now, or as soon as the look that is under way has ended, and from now on. */
  start() {
    this.#isStarted = true;
    this.#isWanted = true;
    clearTimeout(this.#timer);
    if (!this.#isLooking) this.#run();
  }

  /** Look no more. */
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
