/** The address `?job=ID` names the job that the page shows, so that it can be bookmarked and shared. */

const CHANGED = "mora-job";

/** @returns {string|null} the id in the address; null without a valid one */
export function shownJob() {
  const given = new URLSearchParams(location.search).get("job");
  return given !== null && /^[\w-]{1,100}$/.test(given) ? given : null;
}

/**
 * Return the address of a job's page.
 * @param {string} id
 * @returns {string}
 */
export function addressOf(id) {
  return `/page?job=${encodeURIComponent(id)}`;
}

/**
 * Show a job, or none for null.
 * @param {string|null} id
 */
export function openJob(id) {
  history.pushState(null, "", id === null ? "/page" : addressOf(id));
  window.dispatchEvent(new Event(CHANGED));
}

/**
 * Open a job's link in this page, unless the click asks for another tab.
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
 * Listen for a change of the job, by this page or by the browser's back button.
 * @param {function(): void} listener
 */
export function whenJobChanges(listener) {
  window.addEventListener(CHANGED, listener);
  window.addEventListener("popstate", listener);
}
