/** The token of the server: first in the link that the server prints, then in this tab's storage. */

const KEY = "mora-token";

/** Stored for this tab and this origin, which includes the port. Not a cookie: browsers send those to all ports. */
export class Token {
  /** Remove the token from the address, so that it does not appear in bookmarks and screenshots. */
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

  /** @returns {Object<string, string>} headers of a request; empty without a token */
  headers() {
    const value = sessionStorage.getItem(KEY);
    return value === null ? {} : { Authorization: `Bearer ${value}` };
  }
}
