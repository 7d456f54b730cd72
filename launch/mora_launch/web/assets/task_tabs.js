/** A tab for each task; arrow keys move between them. */

import { element } from "./elements.js";
import { TaskForm } from "./task_form.js";

/** The tabs and their forms. */
export class TaskTabs {
  #tabs = new Map();
  #forms = new Map();

  /**
   * Further arguments are those of `TaskForm`.
   * @param {Map<Object, function(FormData, Blob[]): Promise<void>>} tasks with what sends the request of each
   */
  constructor(tasks, limits, fetchExample) {
    const bar = element("div", { role: "tablist", "aria-label": "Task" });
    const panels = [...tasks].map(([task, make]) => {
      const form = new TaskForm(task, limits, make, fetchExample);
      const tab = element("button", { type: "button", role: "tab", id: `tab-${task.id}` }, task.name);
      tab.setAttribute("aria-controls", `panel-${task.id}`);
      tab.addEventListener("click", () => this.select(task.id));
      bar.append(tab);
      this.#tabs.set(task.id, tab);
      this.#forms.set(task.id, form);
      const names = { role: "tabpanel", id: `panel-${task.id}`, "aria-labelledby": `tab-${task.id}` };
      return element("div", names, form.element);
    });
    bar.addEventListener("keydown", (event) => this.#move(event));
    this.element = element("div", { class: "tabs" }, bar, ...panels);
    this.select(tasks.keys().next().value.id);
  }

  /**
   * Show a task's form.
   * @param {string} id
   * @returns {TaskForm}
   */
  select(id) {
    for (const [other, tab] of this.#tabs) {
      const isShown = other === id;
      tab.setAttribute("aria-selected", String(isShown));
      tab.setAttribute("tabindex", isShown ? "0" : "-1"); // the Tab key stops once at the bar
      this.element.querySelector(`#panel-${other}`).hidden = !isShown;
    }
    return this.#forms.get(id);
  }

  /** Put the focus on the tab of the shown form. */
  focus() {
    this.element.querySelector("[role=tab][aria-selected=true]").focus();
  }

  #move(event) {
    const ids = [...this.#tabs.keys()];
    const place = ids.findIndex((id) => this.#tabs.get(id) === document.activeElement);
    const last = ids.length - 1;
    const right = place === last ? 0 : place + 1;
    const left = place === 0 ? last : place - 1;
    const next = { ArrowRight: right, ArrowLeft: left, Home: 0, End: last }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    this.select(ids[next]);
    this.#tabs.get(ids[next]).focus();
  }
}
