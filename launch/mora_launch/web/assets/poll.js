/** Looking again and again, one look at a time. */

/** A look that is repeated while it is started. */
export class Poll {
  #timer = 0;
  #round = 0;

  /**
   * @param {function(): Promise<void>} look
   * @param {number} everyMs between the end of a look and the next one
   */
  constructor(look, everyMs) {
    this.look = look;
    this.everyMs = everyMs;
  }

  /** Look now, and from now on. */
  start() {
    this.stop();
    this.#next(this.#round);
  }

  /** Look no more. */
  stop() {
    clearTimeout(this.#timer);
    this.#round += 1; // a look that is under way begins no other one
  }

  async #next(round) {
    await this.look();
    if (round === this.#round) this.#timer = setTimeout(() => this.#next(round), this.everyMs);
  }
}
