/** Keys of the review page: one key is one decision. */

/**
 * Listen to keys, but not while somebody writes.
 * @param {function(string): boolean} press told the key; whether it meant something
 */
export function listenToKeys(press) {
  document.addEventListener("keydown", (event) => {
    const isWriting = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
    if (isWriting || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (press(event.key.toLowerCase())) event.preventDefault();
  });
}
