/** One set of candidates side by side, locked for this reviewer until they decide, skip or leave. */

import { ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { MediaView } from "./media_view.js";
import { Poll } from "./poll.js";
import { listenToKeys } from "./rounds_keys.js";

const EVERY_MS = 5000; // the server unlocks the set of a page that is silent for 20 s
const NOTHING = "No set waits for review, except those that other reviewers see.";

/** The view of one visitor. */
export class RoundsView {
  #api;
  #visit = null;
  #reviewer = "";
  #set = null;
  #isBusy = false;
  #buttons = new Map();
  #views = [];
  #poll = new Poll(() => this.#look(), EVERY_MS);

  /** @param {Api} api */
  constructor(api) {
    this.#api = api;
    this.prompt = element("h2", { role: "status" });
    this.question = element("p", { class: "question" });
    this.candidates = element("div", { class: "candidates" });
    this.statistics = element("p", { class: "hint" });
    this.problem = element("p", { class: "error", role: "alert" });
    this.actions = element(
      "div",
      { class: "actions" },
      this.#button("0", "None is good", () => this.#decide(null)),
      this.#button("s", "Skip", () => this.#skip()),
      this.#button("u", "Undo", () => this.#say("undo", {})),
    );
    const parts = [this.prompt, this.question, this.candidates, this.actions, this.problem, this.statistics];
    this.element = element("div", { hidden: true }, ...parts);
    listenToKeys((key) => this.#press(key));
    window.addEventListener("pagehide", () => this.#leave());
    window.addEventListener("pageshow", (event) => {
      if (event.persisted && this.#reviewer !== "") this.#look(); // the browser restored the page from its cache
    });
  }

  /**
   * Begin a visit.
   * @param {string} reviewer
   */
  async begin(reviewer) {
    const shown = await this.#api.json("/v1/visits", "POST", { reviewer });
    this.#reviewer = reviewer;
    this.element.hidden = false;
    this.#show(shown);
    this.#poll.start();
  }

  #button(key, label, act, attributes = {}) {
    const made = button(label, act, { ...attributes, "aria-keyshortcuts": key });
    made.append(element("span", { class: "keys", "aria-hidden": "true" }, key));
    this.#buttons.set(key, made);
    return made;
  }

  #press(key) {
    const pressed = this.#buttons.get(key);
    if (pressed === undefined || this.#visit === null || pressed.hidden) return false;
    pressed.click();
    return true;
  }

  #leave() {
    if (this.#visit !== null) this.#api.sayLast(`/v1/visits/${this.#visit}`, "DELETE");
    this.#visit = null;
  }

  async #look() {
    if (this.#isBusy) return;
    await this.#do(async () => {
      const shown = this.#visit === null ? null : await this.#api.json(`/v1/visits/${this.#visit}`);
      this.#show(shown ?? (await this.#api.json("/v1/visits", "POST", { reviewer: this.#reviewer })));
    });
  }

  #decide(chosen) {
    return this.#set === null ? undefined : this.#say("decision", { ...this.#name, chosen });
  }

  #skip() {
    return this.#set === null ? undefined : this.#say("skip", this.#name);
  }

  get #name() {
    return { round: this.#set.round, index: this.#set.index };
  }

  async #say(what, body) {
    if (this.#isBusy || this.#visit === null) return;
    this.problem.replaceChildren();
    await this.#do(async () => {
      this.#show(await this.#api.json(`/v1/visits/${this.#visit}/${what}`, "POST", body));
    });
  }

  /** Allow one request at a time, so that a double press does not decide two sets. */
  async #do(act) {
    this.#isBusy = true;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 404) this.#visit = null; // this visit has ended; the next poll begins another one
      this.problem.replaceChildren(error.message);
    } finally {
      this.#isBusy = false;
    }
  }

  #show(shown) {
    this.#visit = shown.visitor;
    this.statistics.replaceChildren(shown.statistics);
    const isSame = shown.set?.round === this.#set?.round && shown.set?.index === this.#set?.index;
    const isFirst = this.prompt.textContent === "";
    if (isSame && !isFirst) return;
    this.#set = shown.set;
    this.prompt.replaceChildren(shown.set?.prompt ?? NOTHING);
    this.question.replaceChildren(shown.set?.question ?? "");
    this.#layOut(shown.set?.num_candidates ?? 0);
    for (const key of ["0", "s"]) this.#buttons.get(key).hidden = shown.set === null;
    for (const [number, view] of this.#views.entries()) this.#load(view, number, shown);
  }

  #layOut(count) {
    if (this.#views.length !== count) {
      for (const number of this.#views.keys()) this.#buttons.delete(String(number + 1));
      for (const view of this.#views) view.clear();
      this.#views = Array.from({ length: count }, (_, number) => new MediaView(`Candidate ${number + 1}`));
      this.candidates.replaceChildren(...this.#views.map((view, number) => this.#candidate(view, number)));
    }
    for (const view of this.#views) view.clear();
  }

  #candidate(view, number) {
    const key = String(number + 1);
    const take = this.#button(key, `Take ${key}`, () => this.#decide(number), { class: "primary" });
    return element("div", { class: "candidate" }, view.element, take);
  }

  /** Not awaited, so that keys work while videos are loading. */
  async #load(view, number, { visitor, set }) {
    try {
      const path = `/v1/visits/${visitor}/rounds/${set.round}/sets/${set.index}/videos/${number}`;
      const blob = await this.#api.blob(path);
      if (this.#set === set) view.show(blob);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.#set === set) this.problem.replaceChildren(error.message);
    }
  }
}
