// Who asks: an API key or a token, in memory only, so it is gone when the page is closed

import { Observable } from "./observable.js";

class Access extends Observable {
  #key = null;
  #renew = null; // gives another token, where a person has signed in
  #renewing = null;
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
  async another(stale, signal) {
    if (this.#key === stale && this.#renew) await this.#renewed();
    if (this.#key !== stale) return;
    this.refused = stale !== null;
    this.needed = true;
    this.ask();
    await new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  // One new token for all requests whose token has expired
  #renewed() {
    const renew = this.#renew;
    this.#renewing ??= renew()
      .then(({ token, renew: next }) => {
        if (this.#renew === renew) this.give(token, next); // else the person has signed out meanwhile
      })
      .catch(() => {}) // the dialog asks
      .finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  ask() {
    this.asking = true;
    this.changed();
  }

  give(key, renew = null) {
    this.#key = key;
    this.#renew = renew;
    this.asking = this.refused = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.changed();
  }

  dismiss() {
    this.asking = false;
    this.changed();
  }

  forget() {
    this.#key = this.#renew = null;
    this.changed();
  }
}

export const access = new Access();
