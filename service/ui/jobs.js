// The jobs on archives: whether this client may see them, their list, and what is asked of one

import { file, json } from "./api.js";
import { client } from "./client.js";
import { Observable } from "./observable.js";

const JOBS = "v1/backfills";
const DESCRIPTION = "openapi.json";
const PERMISSION = "backfill";
const OFTEN_MILLISECONDS = 1000; // between two looks while a job is in progress
const SELDOM_MILLISECONDS = 10_000;
const UNFINISHED = new Set(["waiting", "running"]);

// What can be asked of a job in each state. A running job must be paused before its images are tried again
const ACTIONS = {
  waiting: ["pause", "cancel", "retry-failed"],
  running: ["pause", "cancel"],
  paused: ["resume", "cancel", "retry-failed"],
  stopped: ["resume", "cancel", "retry-failed"],
  cancelled: [],
  done: ["retry-failed"],
};

export const actionsOf = ({ state, counts }) => (ACTIONS[state] ?? []).filter((each) => each !== "retry-failed" || counts.failed > 0);

export class Jobs extends Observable {
  disabled = false; // the service works on no archives
  list = null; // the newest first
  problem = null; // of the last look
  problems = new Map(); // of what was asked of a job, by its identifier
  opened = null; // identifier of the job whose details are shown
  codes = null; // of that job
  certificate = null; // of that job, once it is done
  #name = null; // of the client that sees them
  #watching = false;
  #timer = null;
  #turn = 0; // of looks: an answer that another look has overtaken is of no use

  constructor() {
    super();
    client.listen(() => this.#met());
  }

  // Whether the client may see jobs; null until that is known
  get permitted() {
    return client.may(PERMISSION);
  }

  // What one client has seen is not for another
  #met() {
    if (client.name !== this.#name) {
      this.#name = client.name;
      this.#turn += 1;
      clearTimeout(this.#timer);
      Object.assign(this, { list: null, opened: null, codes: null, certificate: null });
      this.problems.clear();
    }
    this.problem = client.problem;
    if (this.permitted && this.#watching) this.look();
    this.changed();
  }

  // Look at the jobs until `rest`; a page in the background rests by itself
  watch() {
    this.#watching = true;
    if (this.permitted) this.look();
    else if (this.permitted === null) client.learn();
  }

  rest() {
    this.#watching = false;
    clearTimeout(this.#timer);
  }

  async look() {
    clearTimeout(this.#timer);
    this.#turn += 1;
    const turn = this.#turn;
    try {
      const { backfills } = await json(JOBS, { patient: false });
      if (turn !== this.#turn) return;
      this.list = backfills;
      this.problem = null;
      await this.#detail();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.disabled = error.code === "backfills_disabled";
      this.problem = error;
    }
    if (turn === this.#turn) this.#again();
    this.changed();
  }

  #again() {
    clearTimeout(this.#timer);
    if (!this.#watching || this.disabled) return;
    const often = !document.hidden && this.list?.some(({ state }) => UNFINISHED.has(state));
    this.#timer = setTimeout(() => this.look(), often ? OFTEN_MILLISECONDS : SELDOM_MILLISECONDS);
  }

  job(id) {
    return this.list?.find((each) => each.id === id);
  }

  // Show the details of a job, or of none
  open(id) {
    Object.assign(this, { opened: id, codes: null, certificate: null });
    this.changed();
    if (id !== null) this.look();
  }

  async #detail() {
    const id = this.opened;
    if (id === null) return;
    const { codes, state } = await json(`${JOBS}/${id}`, { patient: false });
    const certificate = state === "done" ? (this.certificate ?? (await json(`${JOBS}/${id}/certificate`, { patient: false }))) : null;
    if (this.opened === id) Object.assign(this, { codes, certificate });
  }

  // Pause, resume, cancel or retry-failed
  async act(id, action) {
    this.problems.delete(id);
    try {
      const changed = await json(`${JOBS}/${id}/${action}`, { body: new Blob([]) });
      this.list = this.list?.map((each) => (each.id === id ? changed : each));
      if (this.opened === id) this.certificate = null;
    } catch (error) {
      this.problems.set(id, error);
    }
    this.changed();
    this.look();
  }

  // Create a job. The same key makes no second one, also if its answer is lost
  async create(wanted, key) {
    const body = new Blob([JSON.stringify(wanted)], { type: "application/json" });
    await json(JOBS, { body, headers: { "Idempotency-Key": key } });
    await this.look();
  }

  // From where jobs may read, and the schema of a new one, as the API describes it
  async possible() {
    const [{ sources }, description] = await Promise.all([json(`${JOBS}/sources`), json(DESCRIPTION)]);
    const schema = description.paths[`/${JOBS}`].post.requestBody.content["application/json"].schema;
    return { sources, schema };
  }

  // The bytes of results, certificate, header-audit or worklist
  file(id, name) {
    return file(`${JOBS}/${id}/${name}`);
  }
}
