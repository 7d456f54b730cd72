/** The form of one task, or of pictures, with the fields that the task uses. */

import { ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { Field, checkField, choiceField, numberField } from "./field.js";
import { FileSlot } from "./file_slot.js";

const OF_FILES = ["image", "video", "input_reference"]; // field names in the server's errors about files
const RARE = ["num_inference_steps", "guidance_scale", "priority"]; // under "More"
const LONG = ["negative_prompt"]; // there, too, over the whole width
const PICTURE = "picture"; // not a task of the server: it answers with pictures and has no review
const NUMS_PICTURES = [2, 3, 4]; // besides one
const ORDINALS = ["First video", "Second video", "Third video"];

/** The form that starts a job. */
export class TaskForm {
  #task;
  #limits;
  #make;
  #fetchExample;

  /**
   * @param {Object} task of `/v1/tasks`, or its `picture`
   * @param {Object} limits of `/v1/tasks`
   * @param {function(FormData, Blob[]): Promise<void>} make sends the request; throws ApiError if it is refused
   * @param {function(string): Promise<Blob>} fetchExample
   */
  constructor(task, limits, make, fetchExample) {
    this.#task = task;
    this.#limits = limits;
    this.#make = make;
    this.#fetchExample = fetchExample;
    const prompt = element("textarea", { rows: 3, placeholder: task.examples[0]?.prompt ?? "" });
    this.prompt = new Field(task.id === "edit" ? "Instruction" : "Prompt", prompt);
    this.slots = slotsOf(task);
    this.fields = this.#optionalFields();
    this.review = task.id === PICTURE ? null : checkField("Review every stage", false);
    this.problem = element("p", { class: "error", role: "alert" });
    this.submit = button(task.id === PICTURE ? "Make the picture" : "Make the video", () => this.#send(), { class: "primary" });
    this.element = this.#form();
  }

  /**
   * Fill the form in.
   * @param {string|null} prompt null keeps the current one
   * @param {{file: Blob, name: string}[]} files
   */
  fill(prompt, files) {
    if (prompt !== null) this.prompt.input.value = prompt;
    this.slots.forEach((slot, place) => slot.set(files[place]?.file ?? null, files[place]?.name ?? ""));
    this.#clearErrors();
  }

  /**
   * Put a file into the first free slot; if there is none, into the first slot, and empty the others.
   * @param {Blob} file
   * @param {string} name
   */
  add(file, name) {
    const free = this.slots.find((slot) => slot.file === null);
    if (free !== undefined) free.set(file, name);
    else this.fill(null, [{ file, name }]);
  }

  /** Ask for the video that is still missing; if none is, put the focus on the prompt. */
  askForRest() {
    const place = this.slots.findIndex((slot, number) => slot.file === null && number < this.#task.least_num_videos);
    if (place < 0) this.prompt.input.focus();
    else this.slots[place].ask(`Choose the ${ORDINALS[place].toLowerCase()}: a file, or “Connect with…” on another video.`);
  }

  #optionalFields() {
    const limits = this.#limits;
    const isPicture = this.#task.id === PICTURE;
    const [own, ...sizes] = this.#task.sizes ?? [];
    const known = {
      n: choiceField("Pictures", "1", NUMS_PICTURES),
      size: choiceField("Size", own ?? "", sizes),
      seconds: numberField("Seconds", `up to ${limits.max_seconds}`, {
        min: 0.1, max: limits.max_seconds, step: "any", placeholder: `one clip, ${limits.clip_seconds.toFixed(1)}`,
      }),
      strength: numberField("Strength", "up to 1", {
        min: 0.05, max: 1, step: "any", placeholder: limits.edit_strength,
      }),
      seed: numberField("Seed", "", {
        min: 0, max: limits.max_seed, step: 1, placeholder: "random",
      }),
      num_inference_steps: numberField("Steps", "", { min: 1, max: 1000, step: 1, placeholder: "default" }),
      guidance_scale: numberField("Guidance", "", { min: 0, max: 50, step: "any", placeholder: "default" }),
      priority: numberField("Priority", "smaller is earlier", {
        min: -limits.max_priority, max: limits.max_priority, step: 1, placeholder: 0,
      }),
      negative_prompt: new Field(`Not in the ${isPicture ? PICTURE : "video"}`, element("textarea", { rows: 2, placeholder: "blurred, text" })),
      lora: choiceField("Adapter", "none", this.#task.adapters),
      enhance: checkField("Let the server enhance the prompt", true),
    };
    const general = ["seed", "num_inference_steps", "guidance_scale"];
    if (isPicture) general.push("n", ...(sizes.length === 0 ? [] : ["size"]));
    const wanted = Object.entries(known).filter(([name]) => general.includes(name) || this.#task.fields.includes(name));
    return new Map(wanted);
  }

  #form() {
    const rare = [...this.fields].filter(([name]) => RARE.includes(name));
    const usual = [...this.fields].filter(([name]) => name !== "enhance" && !LONG.includes(name) && !RARE.includes(name));
    const long = [...this.fields].filter(([name]) => LONG.includes(name));
    const form = element(
      "form",
      { novalidate: true }, // the server checks the fields, with better messages
      element("p", { class: "about" }, this.#task.description),
      this.prompt.element,
      this.slots.length === 0 ? null : element("div", { class: "row slots" }, ...this.slots.map((slot) => slot.element)),
      element("div", { class: "row" }, ...usual.map(([, field]) => field.element)),
      this.fields.get("enhance")?.element ?? null,
      this.review?.element ?? null,
      element(
        "details",
        {},
        element("summary", {}, "More"),
        ...long.map(([, field]) => field.element),
        element("div", { class: "row" }, ...rare.map(([, field]) => field.element)),
      ),
      this.problem,
      element("div", { class: "actions" }, this.submit),
      this.#examples(),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("keydown", (event) => {
      const isShort = event.target instanceof HTMLInputElement && event.target.type === "number";
      if (event.key !== "Enter" || !(isShort || event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.submit.click();
    });
    return form;
  }

  #examples() {
    const buttons = this.#task.examples.map((example) => {
      const made = button(example.prompt, () => this.#run(example), { class: "example" });
      made.prepend(element("span", { "aria-hidden": "true" }, "▶ "));
      return made;
    });
    return element("div", { class: "examples" }, element("p", { class: "hint" }, "Run an example"), ...buttons);
  }

  #run(example) {
    return this.#told(async () => {
      const files = await Promise.all(example.files.map((path) => this.#fetchExample(path)));
      this.fill(example.prompt, files.map((file, place) => ({ file, name: example.files[place].split("/").at(-1) })));
      await this.#send();
    });
  }

  #send() {
    this.#clearErrors();
    const files = this.slots.map((slot) => slot.file).filter((file) => file !== null);
    const most = this.#limits.max_upload_nbytes;
    const large = this.slots.find((slot) => slot.file !== null && slot.file.size > most);
    if (large !== undefined) {
      // checked here because the server would close the connection midway
      large.field.error = `expected at most ${most} bytes, got ${large.file.size}`;
      return undefined;
    }
    return this.#told(() => this.#make(this.#content(files), files));
  }

  async #told(act) {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#showError(error);
    }
  }

  #content(files) {
    const content = new FormData();
    if (this.review !== null) {
      content.set("task", this.#task.id);
      content.set("review", String(this.review.input.checked));
    }
    content.set("prompt", this.prompt.value);
    for (const [name, field] of this.fields) {
      if (name === "enhance") content.set(name, String(field.input.checked));
      else if (field.value !== "") content.set(name, field.value);
    }
    for (const file of files) content.append("input_reference", file, "file");
    return content;
  }

  #showError(error) {
    const fields = { prompt: this.prompt, review: this.review ?? undefined, ...Object.fromEntries(this.fields) };
    const missing = this.slots.find((slot) => slot.file === null) ?? this.slots[0];
    const field = OF_FILES.includes(error.field) ? missing?.field : fields[error.field];
    if (field === undefined) {
      this.problem.replaceChildren(error.message);
      return;
    }
    field.error = error.message.replace(`${error.field}: `, ""); // the label says which field it is
    field.element.closest("details")?.setAttribute("open", "");
    field.input.focus();
  }

  #clearErrors() {
    this.problem.replaceChildren();
    for (const field of [this.prompt, this.review, ...this.fields.values()]) if (field !== null) field.error = "";
    for (const slot of this.slots) slot.field.error = "";
  }
}

function slotsOf(task) {
  const pictures = Array.from({ length: task.num_images }, () => new FileSlot("Picture", "image"));
  const most = task.most_num_videos;
  const videos = Array.from({ length: most }, (_, place) => {
    const label = most === 1 ? "Video" : ORDINALS[place];
    return new FileSlot(place < task.least_num_videos ? label : `${label} (optional)`, "video");
  });
  return [...pictures, ...videos];
}
