/** The page of `mora serve`: creates its parts and connects them. */

import { Api, ApiError } from "./api.js";
import { Gallery } from "./gallery.js";
import { JobActions } from "./job_actions.js";
import { openJob, shownJob, whenJobChanges } from "./job_address.js";
import { JobList } from "./job_list.js";
import { JobView } from "./job_view.js";
import { Jobs } from "./jobs.js";
import { Pictures } from "./pictures.js";
import { TaskTabs } from "./task_tabs.js";

const place = (id) => document.getElementById(id);

async function start() {
  const api = new Api();
  const { data: tasks, picture, limits } = await api.json("/v1/tasks");
  const names = new Map(tasks.map((task) => [task.id, task.name]));
  const sent = new Map(); // files by job, while the page is open: the server does not return them

  const make = async (form, files) => {
    const job = await api.json("/v1/videos", "POST", form);
    sent.set(job.id, files);
    openJob(job.id);
    place("job").scrollIntoView({ block: "nearest" }); // on a phone it is below the form
    jobs.lookNow();
  };
  const makePictures = (form) => {
    const made = pictures.make(form);
    if (shownJob() === null) show();
    else openJob(null);
    place("job").scrollIntoView({ block: "nearest" });
    return made;
  };
  const makers = new Map(tasks.map((task) => [task, make]));
  if (picture !== null) makers.set(picture, makePictures);
  const tabs = new TaskTabs(makers, limits, (path) => api.blob(path));
  const pictures = new Pictures(api, tabs);
  const actions = new JobActions(api, tabs, sent);
  const view = new JobView(api, names, limits, actions, () => jobs.lookNow());
  const gallery = new Gallery(api, names, actions, () => jobs.loadOlder());
  const list = new JobList(names);
  const jobs = new Jobs(api, (found, mayHaveMore) => {
    gallery.show(found, mayHaveMore);
    list.show(found);
    place("running").hidden = list.isEmpty;
  }, (fault) => place("connection").replaceChildren(fault));

  place("tasks").append(tabs.element);
  place("job").append(view.element, pictures.element);
  place("running").append(list.element);
  place("gallery").append(gallery.element);
  if (api.hasAskedForToken) tabs.focus();
  const show = () => {
    const job = shownJob();
    view.open(job);
    view.element.hidden = job === null && pictures.isUsed;
    pictures.element.hidden = !view.element.hidden;
  };
  whenJobChanges(show);
  show();
  jobs.start();
}

start().catch((error) => {
  place("connection").replaceChildren(error instanceof ApiError ? error.message : String(error));
  throw error; // the browser's console shows the traceback
});
