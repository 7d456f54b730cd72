/** Requests to the server that the page came from. */

import { Token } from "./token.js";
import { TokenForm } from "./token_form.js";

/** The server refused a request. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status; 0 if the server did not answer
   * @param {string} message
   * @param {string|null} field name of the invalid field
   */
  constructor(status, message, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** Calls the public HTTP interface with the token. */
export class Api {
  /** Whether the user has been asked for the token. */
  hasAskedForToken = false;

  #token = new Token();
  #form = new TokenForm();

  /**
   * Send a request and return the JSON of its answer.
   * @param {string} path
   * @param {string} method
   * @param {FormData|Object|undefined} body an object is sent as JSON
   * @param {AbortSignal|undefined} signal ends the request; the promise is then rejected with the signal's reason
   * @returns {Promise<any>}
   */
  async json(path, method = "GET", body = undefined, signal = undefined) {
    return (await this.#answer(path, method, body, signal)).json();
  }

  /**
   * Fetch a file.
   * @param {string} path
   * @returns {Promise<Blob>}
   */
  async blob(path) {
    return (await this.#answer(path, "GET")).blob();
  }

  /**
   * Fetch a file that may be gone meanwhile.
   * @param {string} path
   * @returns {Promise<Blob|null>} null if it is not there
   */
  async blobIfAny(path) {
    try {
      return await this.blob(path);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    }
  }

  /**
   * Send a request while the page closes, without waiting for the answer.
   * @param {string} path
   * @param {string} method
   */
  sayLast(path, method) {
    fetch(path, { method, headers: this.#token.headers(), credentials: "omit", keepalive: true }).catch(() => {
      // the page has closed: the server notices that its requests stop
    });
  }

  async #answer(path, method, body, signal = undefined) {
    for (;;) {
      const headers = this.#token.headers();
      const answer = await this.#fetched(path, method, body, headers, signal);
      if (answer.ok) return answer;
      if (answer.status !== 401) throw await refusal(answer);
      this.hasAskedForToken = true;
      this.#token.set(await this.#form.ask("Authorization" in headers));
    }
  }

  async #fetched(path, method, body, headers, signal) {
    const isJson = body !== undefined && !(body instanceof FormData);
    const kind = isJson ? { "Content-Type": "application/json" } : {};
    try {
      return await fetch(path, {
        method,
        headers: { ...headers, ...kind },
        body: isJson ? JSON.stringify(body) : body,
        credentials: "omit",
        signal,
      });
    } catch {
      signal?.throwIfAborted();
      throw new ApiError(0, "the server does not answer; it may have stopped");
    }
  }
}

async function refusal(answer) {
  const content = await answer.json().catch(() => null); // a proxy may answer with something else
  const error = content?.error;
  if (typeof error?.message !== "string") return new ApiError(answer.status, `the server answered ${answer.status}`);
  return new ApiError(answer.status, error.message, typeof error.param === "string" ? error.param : null);
}
