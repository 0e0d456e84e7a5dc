// An object that tells its listeners when it has changed

export class Observable {
  #listeners = new Set();

  // Returns a function that ends it
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed() {
    for (const listener of this.#listeners) listener();
  }
}
