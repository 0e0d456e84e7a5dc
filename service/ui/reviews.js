// The reviews of jobs: whether this client may review, and which jobs there are

import { Problem, json } from "./api.js";
import { client } from "./client.js";
import { Observable } from "./observable.js";
import { Session } from "./review_session.js";

const REVIEWS = "v1/reviews";
const PERMISSION = "review";

export class Reviews extends Observable {
  disabled = false; // the service works on no archives
  list = null; // jobs, the newest first
  problem = null;
  session = null; // of the job that is reviewed now
  #reader = null;

  constructor() {
    super();
    client.listen(() => this.#met());
  }

  // Whether the client may review; null until that is known
  get permitted() {
    return client.may(PERMISSION);
  }

  // The name under which this client decides
  get reader() {
    return client.name;
  }

  // Whether a decision is not saved yet
  get unsaved() {
    return this.session !== null && this.session.unsent.length > 0;
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

  // Another person decides now
  #met() {
    if (client.name !== this.#reader) {
      this.#reader = client.name;
      this.close();
      this.list = null;
    }
    this.problem = client.problem;
    this.changed();
  }
}
