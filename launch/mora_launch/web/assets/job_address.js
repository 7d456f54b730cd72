/** The job that the page shows is in its address, `?job=ID`: to be kept, and to be sent to another person. */

const CHANGED = "mora-job";

/** @returns {string|null} the id in the address; what can be no id is taken for none */
export function shownJob() {
  const given = new URLSearchParams(location.search).get("job");
  return given !== null && /^[\w-]{1,100}$/.test(given) ? given : null;
}

/**
 * The address of a job's page.
 * @param {string} id
 * @returns {string}
 */
export function addressOf(id) {
  return `/page?job=${encodeURIComponent(id)}`;
}

/**
 * Show a job, or none.
 * @param {string|null} id
 */
export function openJob(id) {
  history.pushState(null, "", id === null ? "/page" : addressOf(id));
  window.dispatchEvent(new Event(CHANGED));
}

/**
 * Open a job's link in this page, unless the person asks for another tab.
 * @param {MouseEvent} event of a click on a link
 * @param {string} id
 */
export function followLink(event, id) {
  if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  openJob(id);
  document.getElementById("job")?.scrollIntoView({ block: "nearest" });
}

/**
 * Listen for another job: opened here, or by the browser's back button.
 * @param {function(): void} listener
 */
export function whenJobChanges(listener) {
  window.addEventListener(CHANGED, listener);
  window.addEventListener("popstate", listener);
}
