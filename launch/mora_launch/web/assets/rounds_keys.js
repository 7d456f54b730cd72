/** Keys of the review page: one key is one decision. */

/**
 * Listen to keys, except while the user types into a field.
 * @param {function(string): boolean} press called with the key; returns whether it had a meaning
 */
export function listenToKeys(press) {
  document.addEventListener("keydown", (event) => {
    const isWriting = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
    if (isWriting || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (press(event.key.toLowerCase())) event.preventDefault();
  });
}
