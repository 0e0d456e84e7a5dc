// Who uses the page: the name that belongs to the key, and what it may do

import { access } from "./access.js";
import { json } from "./api.js";
import { Observable } from "./observable.js";

const CLIENT = "v1/client";

class Client extends Observable {
  name = null; // null until it is known
  problem = null; // why it is not known
  #permissions = null;
  #key = access.signed().key;
  #learning = false;

  constructor() {
    super();
    access.listen(() => this.#signed());
  }

  // Whether it has a permission; null until that is known
  may(permission) {
    return this.#permissions?.includes(permission) ?? null;
  }

  // Ask the service. A token that is renewed changes nothing until the answer, so what a person has open stays
  async learn() {
    if (this.#learning) return; // it goes on with the key that is given
    this.#learning = true;
    let key;
    do {
      key = this.#key;
      await this.#ask();
    } while (key !== this.#key && this.#key !== null);
    if (this.#key === null && key !== null) this.#forget();
    this.#learning = false;
    this.changed();
  }

  async #ask() {
    try {
      const { name, permissions } = await json(CLIENT);
      Object.assign(this, { name, problem: null });
      this.#permissions = permissions;
    } catch (error) {
      this.problem = error;
    }
  }

  #signed() {
    const { key } = access.signed();
    if (key === this.#key) return;
    this.#key = key;
    if (key === null) {
      this.#forget();
      this.changed();
    } else this.learn();
  }

  #forget() {
    Object.assign(this, { name: null, problem: null });
    this.#permissions = null;
  }
}

export const client = new Client();
