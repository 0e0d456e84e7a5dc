// Whether files are sent in groups now, and whether that takes long

const LONG_MILLISECONDS = 10_000; // pictures of cards wait for the answers of groups, but no longer

export class Grouping {
  on = false;
  late = false;
  #whenLate;
  #timer = null;

  constructor(whenLate) {
    this.#whenLate = whenLate;
  }

  begin() {
    if (this.on) return;
    this.on = true;
    this.#timer = setTimeout(() => {
      this.late = true;
      this.#whenLate();
    }, LONG_MILLISECONDS);
  }

  end() {
    this.on = this.late = false;
    clearTimeout(this.#timer);
  }
}
