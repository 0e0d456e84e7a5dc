// One file that the page classifies, or one entry of an archive

export const FILTERS = ["all", "frontal", "lateral", "not_chest", "review", "header", "refused"];

const logit = (share) => Math.log(Math.max(share, 1e-9) / Math.max(1 - share, 1e-9));
const distance = (share, cutoff) => Math.abs(logit(share) - logit(cutoff));

export class Item {
  constructor(id, name, file) {
    Object.assign(this, { id, name, file, state: "waiting", answer: null, problem: null, version: 0 });
    this.archive = false;
    this.alone = false; // it is sent in no group
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
