/** The name of a stage inside a sentence. */

/**
 * Return "the image", but "segment 1".
 * @param {string} stage
 * @returns {string}
 */
export function stageWords(stage) {
  return /\d$/.test(stage) ? stage : `the ${stage}`;
}

/**
 * Begin a sentence with a text.
 * @param {string} text
 * @returns {string}
 */
export function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
