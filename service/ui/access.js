// Who asks: the API key, in memory only, so it is gone when the page is closed
//
// A token of an identity provider is sent in the same header. Signing in with it (authorisation code
// with PKCE) needs another way to call `give`, and nothing else.

import { Observable } from "./observable.js";

class Access extends Observable {
  #key = null;
  #waiting = [];
  asking = false; // whether the dialog is open
  refused = false; // whether the last key was refused
  needed = false; // whether the service wants a key

  get given() {
    return this.#key !== null;
  }

  // The headers of a request, and the key that they hold
  signed() {
    const key = this.#key;
    return { key, headers: key === null ? {} : { Authorization: `Bearer ${key}` } };
  }

  // Resolves when there is another key than the one that was refused. Rejects when `signal` aborts
  another(stale, signal) {
    if (this.#key !== stale) return Promise.resolve();
    this.refused = stale !== null;
    this.needed = true;
    this.ask();
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  ask() {
    this.asking = true;
    this.changed();
  }

  give(key) {
    this.#key = key;
    this.asking = this.refused = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.changed();
  }

  dismiss() {
    this.asking = false;
    this.changed();
  }

  forget() {
    this.#key = null;
    this.changed();
  }
}

export const access = new Access();
