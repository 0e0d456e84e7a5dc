// The reviews of jobs: whether this client may review, and which jobs there are

import { access } from "./access.js";
import { Problem, client, json } from "./api.js";
import { Observable } from "./observable.js";
import { Session } from "./review_session.js";

const REVIEWS = "v1/reviews";
const PERMISSION = "review";

export class Reviews extends Observable {
  permitted = null; // null until it is known
  disabled = false; // the service works on no archives
  reader = null; // the name under which this client decides
  list = null; // jobs, the newest first
  problem = null;
  session = null; // of the job that is reviewed now
  #key;
  #learning = false;

  constructor() {
    super();
    this.#key = access.signed().key;
    access.listen(() => this.#signed());
    this.learn();
  }

  // Whether a decision is not saved yet
  get unsaved() {
    return this.session !== null && this.session.unsent.length > 0;
  }

  async learn() {
    if (this.#learning) return; // it goes on with the key that is given
    this.#learning = true;
    try {
      const { name, permissions } = await client();
      if (this.session && name !== this.reader) this.close(); // another person decides now
      this.permitted = permissions.includes(PERMISSION);
      this.reader = name;
    } catch (error) {
      this.problem = error;
    }
    this.#learning = false;
    this.changed();
  }

  async load() {
    try {
      const { reviews } = await json(REVIEWS);
      Object.assign(this, { list: reviews, problem: null, disabled: false });
    } catch (error) {
      this.disabled = error instanceof Problem && error.code === "backfills_disabled";
      this.problem = error;
    }
    this.changed();
  }

  open(job) {
    this.session = new Session(job, this.reader);
    this.session.listen(() => this.changed());
    this.session.start("open");
    this.changed();
  }

  close() {
    this.session?.end();
    this.session = null;
    this.changed();
  }

  #signed() {
    const { key } = access.signed();
    if (key === this.#key) return;
    this.#key = key;
    if (key === null) {
      this.close();
      Object.assign(this, { permitted: null, list: null, reader: null, problem: null });
    } else this.learn();
    this.changed();
  }
}
