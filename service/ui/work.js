// The files that the page classifies: what waits, what is in progress, what is answered

import { lines, Problem, request } from "./api.js";
import { isArchive } from "./files.js";
import { Observable } from "./observable.js";
import { Pictures } from "./pictures.js";

const CLASSIFY = "v1/classify";
const EXPLAIN = "v1/classify?explain=true";
const BATCH = "v1/classify/batch";
const AT_ONCE = 6; // requests; browsers open as many connections to one server
const EXPLAINED = 12; // of the first files, the answer and the pictures come in one request
const MOST_PICTURES = 120;
const REPORT_MILLISECONDS = 100; // between two changes of the page
const RATE_SECONDS = 5; // over which the rate is measured

export const FILTERS = ["all", "frontal", "lateral", "not_chest", "review", "header", "refused"];

class Item {
  constructor(id, name, file) {
    Object.assign(this, { id, name, file, state: "waiting", answer: null, problem: null, version: 0 });
    this.archive = false;
    this.pictures = file === null ? "none" : "unasked"; // or asked, here, none
  }

  get settled() {
    return this.state === "done" || this.state === "refused";
  }

  // Whether it belongs to a filter
  is(filter) {
    if (filter === "all") return this.state !== "gone";
    if (filter === "refused") return this.state === "refused";
    if (this.state !== "done") return false;
    if (filter === "review") return this.answer.review;
    if (filter === "header") return this.contradicted;
    return this.answer.view === filter;
  }

  get contradicted() {
    const header = this.answer?.header;
    return header?.agrees === false || header?.body_part_agrees === false;
  }

  // Distance of the answer from its cutoff, in logits; of those without an answer, -1
  get certainty() {
    if (this.state !== "done") return -1;
    const { view, pfi, threshold, chest, chest_threshold: cutoff } = this.answer;
    return view === "not_chest" ? distance(chest, cutoff) : distance(pfi, threshold);
  }
}

const UNREADABLE = new Set(["NotReadableError", "NotFoundError", "SecurityError"]);

// The problem of an error that is not the service's
function ofThePage(error) {
  return { code: UNREADABLE.has(error.name) ? "unreadable_file" : "page_error", title: "", status: null };
}

const logit = (share) => Math.log(Math.max(share, 1e-9) / Math.max(1 - share, 1e-9));
const distance = (share, cutoff) => Math.abs(logit(share) - logit(cutoff));

export class Work extends Observable {
  items = [];
  counts = Object.fromEntries(FILTERS.map((filter) => [filter, 0]));
  settled = 0;
  archives = 0; // whose answers still arrive, so that the number of images is not known
  waits = 0; // seconds that the service asked to wait
  stopped = false;
  pictures = new Pictures(MOST_PICTURES);
  #next = 0; // the first item that may wait
  #active = 0;
  #wanted = new Set(); // items whose pictures are looked at
  #stop = new AbortController();
  #report = null;
  #ends = []; // times of the last answers

  get busy() {
    return this.#active > 0 || this.#next < this.items.length;
  }

  get running() {
    return this.busy && !this.stopped;
  }

  // Images per second, lately
  get rate() {
    const since = performance.now() - 1000 * RATE_SECONDS;
    this.#ends = this.#ends.filter((end) => end > since);
    const [first] = this.#ends;
    if (this.#ends.length < 3) return 0;
    return (1000 * this.#ends.length) / (performance.now() - first);
  }

  add(name, file) {
    this.items.push(new Item(this.items.length, name, file));
    this.counts.all += 1;
    if (this.stopped) this.resume();
    this.#changed();
    this.#go();
  }

  // Stop all requests; what was not answered waits for `resume`
  cancel() {
    this.stopped = true;
    this.#stop.abort(new DOMException("stopped", "AbortError"));
    this.#stop = new AbortController();
    this.waits = 0;
    this.#changed();
  }

  resume() {
    this.stopped = false;
    this.#next = 0;
    this.#changed();
    this.#go();
  }

  retry(item) {
    if (item.state !== "refused" || item.file === null) return;
    this.counts.refused -= 1;
    this.settled -= 1;
    Object.assign(item, { state: "waiting", problem: null });
    this.resume();
  }

  clear() {
    this.cancel();
    this.pictures.clear();
    this.items = [];
    for (const filter of FILTERS) this.counts[filter] = 0;
    this.settled = this.archives = this.#next = 0;
    this.#ends = [];
    this.stopped = false;
    this.#changed();
  }

  // The items on the screen; their pictures are asked for, and kept
  look(items) {
    this.#wanted = new Set(items.map((item) => item.id));
    for (const item of items) {
      if (item.pictures === "here" && !this.pictures.has(item.id)) item.pictures = "unasked";
    }
    if (items.some((item) => item.state === "done" && item.pictures === "unasked")) this.#go();
  }

  #go() {
    while (this.#active < AT_ONCE) {
      const task = this.#task();
      if (!task) return;
      this.#active += 1;
      task().finally(() => {
        this.#active -= 1;
        this.#changed();
        this.#go();
      });
    }
  }

  // Pictures that are looked at come first; there are as many as the screen has places
  #task() {
    for (const id of this.#wanted) {
      const item = this.items[id];
      if (item?.state === "done" && item.pictures === "unasked") return this.#started(item, "asked", this.#picture);
    }
    if (this.stopped) return null;
    while (this.#next < this.items.length) {
      const item = this.items[this.#next];
      this.#next += 1;
      if (item.state === "waiting") return this.#started(item, item.pictures, this.#classify);
    }
    return null;
  }

  #started(item, pictures, task) {
    if (item.state === "waiting") item.state = "working";
    item.pictures = pictures;
    item.version += 1;
    return () => task.call(this, item);
  }

  async #classify(item) {
    const signal = this.#stop.signal;
    try {
      if (await isArchive(item.file)) await this.#batch(item, signal);
      else await this.#one(item, signal);
    } catch (error) {
      if (item.state === "gone") this.#restore(item);
      else if (signal.aborted) item.state = "waiting";
      else this.#refuse(item, error);
      item.version += 1;
    }
  }

  async #one(item, signal) {
    const explain = item.id < EXPLAINED || this.#wanted.has(item.id);
    const answer = await this.#post(explain ? EXPLAIN : CLASSIFY, item.file, signal);
    const { explanation, ...found } = await answer.json();
    if (explanation) this.#keep(item, explanation);
    this.#settle(item, found);
  }

  async #batch(item, signal) {
    item.archive = true;
    this.archives += 1;
    try {
      const answer = await this.#post(BATCH, item.file, signal);
      this.#remove(item);
      for await (const { name, error, ...found } of lines(answer)) {
        const entry = new Item(this.items.length, `${item.name}/${name}`, null);
        entry.state = "working";
        this.items.push(entry);
        this.counts.all += 1;
        if (error) this.#refuse(entry, new Problem(error));
        else this.#settle(entry, found);
      }
    } finally {
      this.archives -= 1;
    }
  }

  // The pictures of an image that was answered without them
  async #picture(item) {
    const signal = this.#stop.signal;
    try {
      const answer = await this.#post(EXPLAIN, item.file, signal);
      const { explanation } = await answer.json();
      this.#keep(item, explanation);
    } catch {
      item.pictures = signal.aborted ? "unasked" : "none"; // its answer stays
    }
    item.version += 1;
  }

  #post(path, file, signal) {
    // A type of a form or of text would be a promise that the bytes are so
    const body = file.slice(0, file.size, "application/octet-stream");
    return request(path, {
      body,
      signal,
      waits: (seconds) => {
        this.waits = seconds;
        this.#changed();
      },
    });
  }

  #keep(item, explanation) {
    this.pictures.set(item.id, explanation, this.#wanted);
    item.pictures = "here";
  }

  #settle(item, answer) {
    item.answer = answer;
    this.#end(item, "done");
  }

  #refuse(item, error) {
    const { code, title, status } = error instanceof Problem ? error : ofThePage(error);
    item.problem = { code, title, detail: error.message, status };
    this.#end(item, "refused");
  }

  #end(item, state) {
    if (this.items[item.id] !== item) return; // the list was cleared
    item.state = state;
    item.version += 1;
    this.settled += 1;
    this.#ends.push(performance.now());
    for (const filter of FILTERS) if (filter !== "all" && item.is(filter)) this.counts[filter] += 1;
    this.#changed();
  }

  // An archive that is answered entry by entry is none of the images
  #remove(item) {
    item.state = "gone";
    this.counts.all -= 1;
  }

  // An archive whose answers have ended too early
  #restore(item) {
    if (this.items[item.id] !== item) return;
    this.counts.all += 1;
    this.#refuse(item, new Problem({ code: "incomplete_archive", title: "", detail: "" }));
  }

  #changed() {
    this.#report ??= setTimeout(() => {
      this.#report = null;
      this.changed();
    }, REPORT_MILLISECONDS);
  }
}
