/** The page of `mora review --web`: asks for a name, then shows one set after the other. */

import { Api, ApiError } from "./api.js";
import { button, element } from "./elements.js";
import { Field } from "./field.js";
import { RoundsView } from "./rounds_view.js";

const NAME = "mora-reviewer";

function start() {
  const view = new RoundsView(new Api());
  const name = new Field("Your name", element("input", { maxlength: 100, autocomplete: "nickname", required: true }));
  name.input.value = localStorage.getItem(NAME) ?? "";
  const begin = button("Begin", async () => {
    name.error = "";
    try {
      await view.begin(name.value);
      localStorage.setItem(NAME, name.value);
      form.hidden = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      name.error = error.message;
    }
  }, { class: "primary" });
  const form = element("form", { class: "begin", novalidate: true }, name.element, begin);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    begin.click();
  });
  document.getElementById("review").append(form, view.element);
  name.input.focus();
}

start();
