/** The token of the server: in the address of the link that the server prints, then in this tab's own storage. */

const KEY = "mora-token";

/** Kept for this tab and this origin, its port included; no cookie, which every port of the host would be sent. */
export class Token {
  /** Take the token out of the address, so that it is in no bookmark and no picture of the screen. */
  constructor() {
    const address = new URL(location.href);
    const given = address.searchParams.get("token");
    if (given === null) return;
    if (given !== "") this.set(given);
    address.searchParams.delete("token");
    history.replaceState(null, "", address.pathname + address.search + address.hash);
  }

  /** @param {string} value */
  set(value) {
    sessionStorage.setItem(KEY, value);
  }

  /** @returns {Object<string, string>} headers of a request: none where no token is known */
  headers() {
    const value = sessionStorage.getItem(KEY);
    return value === null ? {} : { Authorization: `Bearer ${value}` };
  }
}
