// How many images are answered in a second

const SECONDS = 5; // over which it is measured
const FEWEST = 3;

export class Rate {
  #ends = []; // times of the last answers

  count() {
    this.#ends.push(performance.now());
  }

  clear() {
    this.#ends = [];
  }

  // Images per second, lately; 0 of few
  get lately() {
    const now = performance.now();
    this.#ends = this.#ends.filter((end) => end > now - 1000 * SECONDS);
    if (this.#ends.length < FEWEST) return 0;
    return (1000 * this.#ends.length) / (now - this.#ends[0]);
  }
}
