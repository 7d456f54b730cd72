/** Requests to the server that the page came from. */

import { Token } from "./token.js";
import { TokenForm } from "./token_form.js";

/** The server refused a request. */
export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0 where the server did not answer
   * @param {string} message
   * @param {string|null} field that does not fit
   */
  constructor(status, message, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** The public HTTP interface, with the token. */
export class Api {
  #token = new Token();
  #form = new TokenForm();

  /**
   * Ask for JSON.
   * @param {string} path
   * @param {string} method
   * @param {FormData|Object|undefined} body an object is sent as JSON
   * @returns {Promise<any>}
   */
  async json(path, method = "GET", body = undefined) {
    return (await this.#answer(path, method, body)).json();
  }

  /**
   * Ask for a file.
   * @param {string} path
   * @returns {Promise<Blob>}
   */
  async blob(path) {
    return (await this.#answer(path, "GET")).blob();
  }

  /**
   * Say something on the way out, when no answer can be waited for.
   * @param {string} path
   * @param {string} method
   */
  sayLast(path, method) {
    fetch(path, { method, headers: this.#token.headers(), credentials: "omit", keepalive: true }).catch(() => {
      // the page is gone: the server finds out by itself that nothing asks any more
    });
  }

  async #answer(path, method, body) {
    for (;;) {
      const headers = this.#token.headers();
      const answer = await this.#fetched(path, method, body, headers);
      if (answer.ok) return answer;
      if (answer.status !== 401) throw await refusal(answer);
      this.#token.set(await this.#form.ask("Authorization" in headers));
    }
  }

  async #fetched(path, method, body, headers) {
    const isJson = body !== undefined && !(body instanceof FormData);
    const kind = isJson ? { "Content-Type": "application/json" } : {};
    try {
      return await fetch(path, {
        method,
        headers: { ...headers, ...kind },
        body: isJson ? JSON.stringify(body) : body,
        credentials: "omit",
      });
    } catch {
      throw new ApiError(0, "the server does not answer; it may have been stopped");
    }
  }
}

async function refusal(answer) {
  const content = await answer.json().catch(() => null); // a proxy may answer with something else
  const error = content?.error;
  if (typeof error?.message !== "string") return new ApiError(answer.status, `the server answered ${answer.status}`);
  return new ApiError(answer.status, error.message, typeof error.param === "string" ? error.param : null);
}
