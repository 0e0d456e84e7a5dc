// The files that the page classifies: what waits, what is in progress, what is answered

import { Problem, problemOf } from "./api.js";
import { client } from "./client.js";
import { isArchive } from "./files.js";
import { Grouping } from "./grouping.js";
import { FILTERS, Item } from "./items.js";
import { Observable } from "./observable.js";
import { Pictures } from "./pictures.js";
import { Rate } from "./rate.js";
import { archive, mayDiffer, one, several } from "./sending.js";

const EXPLAIN = "?explain=true";
const EXPLAIN_BESIDE = "?explain=true&lane=backfill"; // an image of the other lane would hold up the groups
const AT_ONCE = 6; // requests; browsers open as many connections to one server
const MANY = 48; // files that wait are sent in groups: a request for each costs the browser more than the service
const GROUP_FILES = 32;
const GROUP_BYTES = 8 * 2 ** 20; // a larger file is sent alone
const GROUPS_AT_ONCE = 3; // one is on its way while others are answered
const TOGETHER = "backfill"; // the permission, and the lane, of groups
const EXPLAINED = 12; // of the first files, the answer and the pictures come in one request
const MOST_PICTURES = 120;
const REPORT_MILLISECONDS = 100; // between two changes of the page
const SELDOM_MILLISECONDS = 250; // beside groups, as the browser needs the processor

const lacksPictures = (item) => item?.state === "done" && item.pictures === "unasked";

export class Work extends Observable {
  items = [];
  counts = Object.fromEntries(FILTERS.map((filter) => [filter, 0]));
  settled = 0;
  archives = 0; // whose answers still arrive, so that the number of images is not known
  waits = 0; // seconds that the service asked to wait
  stopped = false;
  rate = new Rate();
  pictures = new Pictures(MOST_PICTURES);
  #next = 0; // the first item that may wait
  #active = 0;
  #groups = 0; // of the active requests
  #pictured = 0; // of the active requests
  #grouping = new Grouping(() => this.#go()); // until all that waits is answered
  #refused = false; // a group was, so there are no more
  #wanted = new Set(); // items whose pictures are looked at
  #opened = null; // the one of them that is selected
  #soon = null;
  #stop = new AbortController();
  #report = null;

  get busy() {
    return this.#active > 0 || this.#next < this.items.length;
  }

  get running() {
    return this.busy && !this.stopped;
  }

  add(name, file) {
    this.items.push(new Item(this.items.length, name, file));
    this.counts.all += 1;
    if (this.stopped) this.resume();
    this.#changed();
    this.#soon ??= setTimeout(() => ((this.#soon = null), this.#go())); // how many there are decides how they are sent
  }

  // Stop all requests; what was not answered waits for `resume`
  cancel() {
    this.stopped = true;
    this.#grouping.end();
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
    Object.assign(item, { state: "waiting", problem: null, alone: true });
    this.resume();
  }

  clear() {
    this.cancel();
    this.pictures.clear();
    this.items = [];
    for (const filter of FILTERS) this.counts[filter] = 0;
    this.settled = this.archives = this.#next = 0;
    this.rate.clear();
    this.stopped = this.#refused = false;
    this.#changed();
  }

  // The items on the screen, and the one that is opened; their pictures are asked for, and kept
  look(shown, opened = null) {
    const items = opened ? [opened, ...shown] : shown;
    this.#wanted = new Set(items.map((item) => item.id));
    this.#opened = opened?.id ?? null;
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

  #task() {
    const item = this.#unpictured();
    if (item) return this.#picturing(item);
    if (this.stopped) return null;
    if (this.#groups > 0 || (this.#grouping.on ? this.#waiting() !== null : this.#many())) this.#grouping.begin();
    else this.#grouping.end();
    return this.#grouping.on ? this.#group() : this.#alone();
  }

  // Pictures that are looked at come first; there are as many as the screen has places. Beside groups, that is the
  // opened one, and after a while the others, one at a time
  #unpictured() {
    if (this.#grouping.on && this.#pictured) return null;
    const wanted = this.#grouping.on && !this.#grouping.late ? [this.#opened] : [...this.#wanted];
    return wanted.map((id) => this.items[id]).find(lacksPictures);
  }

  // Whether what waits is to be sent in groups
  #many() {
    return this.items.length - this.#next >= MANY && !this.#refused && client.may(TOGETHER) === true;
  }

  // The next item that waits
  #waiting() {
    while (this.#next < this.items.length) {
      if (this.items[this.#next].state === "waiting") return this.items[this.#next];
      this.#next += 1;
    }
    return null;
  }

  #alone() {
    const item = this.#waiting();
    if (!item) return null;
    this.#start(item);
    return () => this.#classify(item);
  }

  #group() {
    const group = [];
    let bytes = 0;
    for (let item = this.#waiting(); item && group.length < GROUP_FILES; item = this.#waiting()) {
      bytes += item.file.size;
      if (item.alone || this.#refused || bytes > GROUP_BYTES) break;
      if (this.#groups >= GROUPS_AT_ONCE) return null;
      this.#start(item);
      group.push(item);
    }
    if (!group.length) return this.#alone();
    this.#groups += 1;
    return () => this.#together(group).finally(() => (this.#groups -= 1));
  }

  #start(item) {
    item.state = "working";
    item.version += 1;
  }

  #picturing(item) {
    item.pictures = "asked";
    item.version += 1;
    this.#pictured += 1;
    return () => this.#picture(item).finally(() => (this.#pictured -= 1));
  }

  async #classify(item) {
    const { signal } = this.#stop;
    try {
      if (await isArchive(item.file)) await this.#archive(item, signal);
      else await this.#one(item, signal);
    } catch (error) {
      if (item.state === "gone") this.#restore(item);
      else if (signal.aborted) this.#again(item, item.alone);
      else this.#refuse(item, error);
      item.version += 1;
    }
  }

  // Many files in one request. Those that it does not answer are sent alone, so each gets its own problem
  async #together(items) {
    const { signal } = this.#stop;
    try {
      const files = items.map(({ file }) => file);
      for await (const { name, error, ...found } of await several(files, this.#options(signal))) {
        const item = items[name];
        if (item?.state !== "working") continue;
        if (!error) this.#settle(item, found);
        else if (!(await mayDiffer(item.file, error))) this.#refuse(item, new Problem(error));
      }
    } catch (error) {
      this.#refused ||= !signal.aborted && error.code !== "unreadable_file";
    }
    for (const item of items) if (item.state === "working") this.#again(item, !signal.aborted);
  }

  #again(item, alone) {
    Object.assign(item, { state: "waiting", alone });
    item.version += 1;
    if (this.items[item.id] === item) this.#next = Math.min(this.#next, item.id);
  }

  async #one(item, signal) {
    const explain = item.id < EXPLAINED || this.#wanted.has(item.id);
    const { explanation, ...found } = await one(item.file, explain ? EXPLAIN : "", this.#options(signal));
    if (explanation) this.#keep(item, explanation);
    this.#settle(item, found);
  }

  async #archive(item, signal) {
    item.archive = true;
    this.archives += 1;
    try {
      const answers = await archive(item.file, this.#options(signal));
      this.#remove(item);
      for await (const { name, error, ...found } of answers) {
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
    const { signal } = this.#stop;
    try {
      const query = this.#grouping.on ? EXPLAIN_BESIDE : EXPLAIN;
      const { explanation } = await one(item.file, query, this.#options(signal));
      this.#keep(item, explanation);
    } catch {
      item.pictures = signal.aborted ? "unasked" : "none"; // its answer stays
    }
    item.version += 1;
  }

  #options(signal) {
    const waits = (seconds) => {
      this.waits = seconds;
      this.#changed();
    };
    return { signal, waits };
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
    const { code, title, message: detail, status } = problemOf(error);
    item.problem = { code, title, detail, status };
    this.#end(item, "refused");
  }

  #end(item, state) {
    if (this.items[item.id] !== item) return; // the list was cleared
    item.state = state;
    item.version += 1;
    this.settled += 1;
    this.rate.count();
    for (const filter of FILTERS) if (filter !== "all" && item.is(filter)) this.counts[filter] += 1;
    if (this.settled === this.counts.all) this.changed();
    else this.#changed();
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
    }, this.#grouping.on ? SELDOM_MILLISECONDS : REPORT_MILLISECONDS);
  }
}
