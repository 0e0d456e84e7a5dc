// The review of one job by one person: what is next, what was decided, and what is saved

import { json, request } from "./api.js";
import { Observable } from "./observable.js";
import { Pictures } from "./pictures.js";

const AHEAD = 4; // pictures that are loaded before they are shown
const BEHIND = 2; // that stay for `undo`
const AT_ONCE = 2; // pictures that are loaded together
const HELD = 16; // pictures in memory
const FEW = 20; // entries before the next ones are asked for
const LAST = 5; // decisions that are shown
const SUMMARY_MILLISECONDS = 1000;
const RETRY_MILLISECONDS = 5000; // after requests that were tried some times in vain
const AWAY = new Set(["unreachable", "cut_off"]); // as in api.js: the service is away, or was in the middle of an answer

export const DECISIONS = { f: "frontal", l: "lateral", n: "not_chest", u: "unsure" };

export class Session extends Observable {
  mode = null; // open, second or conflicts
  entries = []; // those that were loaded, in the order of the worklist
  at = 0; // the one that is shown; those before it are decided
  loading = true;
  problem = null; // the worklist cannot be loaded
  pictures = new Pictures(HELD);
  states = new Map(); // by instance: loading, here, or an error
  unsent = []; // decisions in their order, until each is saved
  unsentProblem = null; // why they are not saved
  refused = null; // why the service did not accept one
  log = []; // what this person has decided, the last one first
  summary = null;
  #decided = []; // for `undo`
  #next = 0; // the place in the worklist to go on at; null: there are no more
  #stop = new AbortController();
  #active = 0;
  #sending = false;
  #timer = null;

  constructor(job, reader) {
    super();
    Object.assign(this, { job, reader, path: `v1/reviews/${job.id}` });
  }

  get entry() {
    return this.entries[this.at] ?? null;
  }

  get undoable() {
    return this.#decided.length > 0;
  }

  async start(mode) {
    this.#stop.abort();
    this.#stop = new AbortController();
    Object.assign(this, { mode, entries: [], at: 0, loading: true, problem: null });
    this.#decided = [];
    this.#next = 0;
    this.#active = 0;
    this.states.clear();
    this.pictures.clear();
    this.changed();
    await this.#saved(); // the worklist must know them
    await this.#more();
    this.#measure();
  }

  // Pictures are freed; decisions that are not saved are still sent
  end() {
    this.#stop.abort();
    this.pictures.clear();
    clearTimeout(this.#timer);
  }

  decide(decision) {
    const { entry } = this;
    const state = entry && this.states.get(entry.instance);
    // Nothing is decided about a picture that is not there
    if (state !== "here" && !(state instanceof Error && decision === "unsure")) return;
    this.at += 1;
    this.#decided.push(entry);
    this.#add(entry, decision);
    if (this.entries.length - this.at < FEW) this.#more();
    this.#fill();
  }

  undo() {
    const entry = this.#decided.pop();
    if (!entry) return;
    this.at -= 1;
    this.#add(entry, null);
    this.#fill();
  }

  // Try to save again what was not
  retry() {
    this.unsentProblem = null;
    this.#send();
  }

  reload(instance) {
    this.states.delete(instance);
    this.#fill();
  }

  dismiss() {
    this.refused = null;
    this.changed();
  }

  #add(entry, decision) {
    const role = this.mode === "conflicts" ? "adjudicator" : "reader";
    this.unsent.push({ instance: entry.instance, decision, role, reader: this.reader });
    this.log.unshift({ name: entry.name, decision, time: new Date() });
    this.log.length = Math.min(this.log.length, LAST);
    this.changed();
    this.#send();
  }

  // One after the other, so that the last decision about an image is the one that stands
  async #send() {
    if (this.#sending || this.unsentProblem) return;
    this.#sending = true;
    while (this.unsent.length && !this.unsentProblem) {
      try {
        const body = new Blob([JSON.stringify(this.unsent[0])], { type: "application/json" });
        await request(`${this.path}/decisions`, { body });
        this.unsent.shift();
      } catch (error) {
        if (error.status >= 400 && error.status < 500) {
          this.refused = error;
          this.unsent.shift();
        } else {
          this.unsentProblem = error;
          setTimeout(() => this.retry(), RETRY_MILLISECONDS);
        }
      }
      this.changed();
    }
    this.#sending = false;
    this.#measure();
  }

  async #saved() {
    while (this.unsent.length && !this.unsentProblem) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async #more() {
    const { signal } = this.#stop;
    if (this.#next === null || this.asking === signal) return;
    this.asking = signal;
    try {
      const { entries, next } = await json(`${this.path}/worklist?show=${this.mode}&after=${this.#next}`, { signal });
      this.entries.push(...entries);
      this.#next = next;
      this.problem = null;
    } catch (error) {
      if (!signal.aborted) this.problem = error;
      if (AWAY.has(error.code)) this.#later(signal, () => this.#more());
    }
    if (signal.aborted) return;
    this.asking = null;
    this.loading = false;
    this.changed();
    this.#fill();
  }

  // Load the pictures around the one that is shown, the nearest first
  #fill() {
    const around = this.entries.slice(Math.max(0, this.at - BEHIND), this.at + 1 + AHEAD);
    const needed = new Set(around.map(({ instance }) => instance));
    for (const instance of this.states.keys()) {
      if (!needed.has(instance) && !this.pictures.has(instance)) this.states.delete(instance);
    }
    const nearest = [...this.entries.slice(this.at, this.at + 1 + AHEAD), ...around];
    for (const { instance } of nearest) {
      if (this.#active >= AT_ONCE) return;
      if (!this.states.has(instance)) this.#load(instance, needed);
    }
  }

  async #load(instance, needed) {
    const { signal } = this.#stop;
    this.#active += 1;
    this.states.set(instance, "loading");
    try {
      const explanation = await json(`${this.path}/pictures/${instance}`, { signal });
      if (signal.aborted) return;
      this.pictures.set(instance, explanation, needed);
      const pictures = this.pictures.get(instance);
      pictures.drawn = await drawn(pictures);
      this.states.set(instance, "here");
    } catch (error) {
      if (signal.aborted) return;
      this.states.set(instance, error);
      if (AWAY.has(error.code)) this.#later(signal, () => this.reload(instance));
    }
    if (signal.aborted) return;
    this.#active -= 1;
    this.changed();
    this.#fill();
  }

  // Unless the list has begun anew
  #later(signal, act) {
    setTimeout(() => signal.aborted || act(), RETRY_MILLISECONDS);
  }

  // How far the review is, after a while without decisions
  #measure() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      try {
        this.summary = await json(this.path, { signal: this.#stop.signal });
        this.changed();
      } catch {
        // it is asked again after the next decision
      }
    }, this.summary ? SUMMARY_MILLISECONDS : 0);
  }
}

// Decoded now and kept with the pictures, so that the browser shows it at once later
async function drawn({ frame, thumbnail }) {
  const image = new Image();
  image.src = frame ? frame.url : thumbnail;
  await image.decode();
  return image;
}
