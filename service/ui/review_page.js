// The page on which persons decide about images of a job

import { Component, createRef, html } from "./html.js";
import { Picture } from "./picture.js";
import { DECISIONS } from "./review_session.js";
import { State } from "./review_state.js";
import { Scale } from "./scale.js";
import { number, percent, probability, shown, t } from "./texts.js";

const MODES = ["open", "second", "conflicts"];
const UNDO = "z";
const TYPED = "input:not([type=radio], [type=checkbox], [type=range]), textarea, select";

const timeOf = (time) => time.toLocaleTimeString(document.documentElement.lang);

export class ReviewPage extends Component {
  componentDidMount() {
    this.props.reviews.load();
  }

  componentDidUpdate() {
    const { reviews } = this.props;
    if (reviews.permitted && !reviews.list && !reviews.problem) reviews.load();
  }

  render({ reviews }) {
    if (reviews.session) return html`<${Desk} key=${reviews.session.job.id} reviews=${reviews} session=${reviews.session} />`;
    return html`<main id="main" class="review">
      <h1>${t("nav.review")}</h1>
      <p class="note">${t("review.text")} ${reviews.reader && t("review.reader", { reader: shown(reviews.reader) })}</p>
      ${this.list(reviews)}
    </main>`;
  }

  list({ permitted, disabled, problem, list }) {
    if (permitted === false) return html`<p class="empty" role="status">${t("review.denied")}</p>`;
    if (disabled) return html`<p class="empty" role="status">${t("review.disabled")}</p>`;
    if (problem) return html`<p class="empty" role="alert">${shown(problem.message)}</p>`;
    if (!list) return html`<p class="empty" role="status">${t("review.waits")}</p>`;
    if (!list.length) return html`<p class="empty" role="status">${t("review.none")}</p>`;
    return html`<ul class="reviews">${list.map((job) => this.job(job))}</ul>`;
  }

  job(job) {
    const day = job.ended ? new Date(job.ended).toLocaleDateString(document.documentElement.lang, { dateStyle: "medium" }) : "";
    return html`<li>
      <div>
        <h2><bdi>${shown(job.source)}</bdi></h2>
        <p class="note">${t("review.job", { images: job.images, model: shown(job.model), day })}</p>
      </div>
      <button type="button" class="primary" onClick=${() => this.props.reviews.open(job)}>
        ${t("review.open")}<span class="unseen"> ${shown(job.source)}</span>
      </button>
    </li>`;
  }
}

class Desk extends Component {
  main = createRef();
  state = { hints: true, opacity: 0 };

  componentDidMount() {
    this.main.current.focus();
  }

  // What had the focus may be gone; keys work within this part of the page only
  componentDidUpdate() {
    if (document.activeElement === document.body) this.main.current.focus({ preventScroll: true });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches(TYPED)) return;
    const key = event.key.toLowerCase();
    if (key in DECISIONS) this.props.session.decide(DECISIONS[key]);
    else if (key === UNDO) this.props.session.undo();
    else return;
    event.preventDefault();
  }

  render({ reviews, session }, { opacity }) {
    return html`<main id="main" class="review" ref=${this.main} tabindex="-1" aria-describedby="review-keys" onKeyDown=${(event) => this.key(event)}>
      <header class="review-head">
        <button type="button" onClick=${() => reviews.close()}>${t("review.back")}</button>
        <h1><bdi>${shown(session.job.source)}</bdi></h1>
        <p id="review-keys" class="unseen">${t("review.keys")}</p>
        <fieldset class="filters">
          <legend class="unseen">${t("review.mode")}</legend>
          ${MODES.map(
            (mode) => html`<label><input type="radio" name="mode" value=${mode} checked=${session.mode === mode} onChange=${() => session.start(mode)} />${t(`review.mode.${mode}`)}</label>`,
          )}
        </fieldset>
        <${Progress} session=${session} />
      </header>
      ${notices(session)}
      <div class="desk" style=${{ "--evidence": opacity / 100 }}>
        ${session.entry ? this.entry(session) : html`<p class="empty" role="status">${empty(session)}</p>`}
        ${!session.entry && html`<div class="side">${this.undo(session)}${last(session)}</div>`}
      </div>
      <${State} session=${session} />
    </main>`;
  }

  entry(session) {
    const { entry } = session;
    const pictures = session.pictures.get(entry.instance);
    const state = session.states.get(entry.instance);
    const failed = state instanceof Error;
    const missing = failed ? t("review.picture.failed", { reason: shown(state.message) }) : t("review.picture.waits");
    return html`<figure class="big">
        <${Picture} key=${entry.instance} pictures=${pictures} alt=${t("review.picture.alt")} missing=${missing} />
      </figure>
      <div class="side">
        <p class="name" title=${shown(entry.name)}><bdi>${shown(entry.name)}</bdi></p>
        ${failed && html`<button type="button" onClick=${() => session.reload(entry.instance)}>${t("review.picture.again")}</button>`}
        <div class="decisions">
          ${Object.entries(DECISIONS).map(
            ([key, decision]) => html`<button type="button" class=${decision} disabled=${state !== "here" && !(failed && decision === "unsure")} onClick=${() => session.decide(decision)}>
              <kbd>${key.toUpperCase()}</kbd>${t(`review.decision.${decision}`)}
            </button>`,
          )}
        </div>
        ${this.undo(session)}
        ${session.mode === "conflicts" && readings(entry)}
        <label class="check"><input type="checkbox" checked=${this.state.hints} onChange=${(event) => this.setState({ hints: event.target.checked, opacity: 0 })} />${t("review.hints")}</label>
        ${this.state.hints && this.hints(entry, pictures)}
        ${last(session)}
      </div>`;
  }

  undo(session) {
    return html`<button type="button" class="undo" disabled=${!session.undoable} onClick=${() => session.undo()}><kbd>Z</kbd>${t("review.undo")}</button>`;
  }

  hints(entry, pictures) {
    const other = entry.view === "not_chest";
    const scale = other ? { kind: "chest", value: entry.chest, cutoff: entry.chest_threshold } : { kind: "pfi", value: entry.pfi, cutoff: entry.threshold };
    return html`<div class="hints">
      <p class="marks">${entry.reasons.map((reason) => html`<span class=${`mark-${reason}`}>${t(`review.reason.${reason}`)}</span>`)}</p>
      <p class=${`verdict ${entry.view}`}>
        <span>${t("review.model")}: ${t(`view.${entry.view}`)}</span><span class="pfi">${t(`scale.${scale.kind}.value`, { value: probability(scale.value) })}</span>
      </p>
      <${Scale} ...${scale} small />
      <dl>
        ${Object.entries(entry.header).map(
          ([name, value]) => html`<div>
            <dt>${t(`review.claim.${name}`)}</dt>
            <dd><bdi>${shown(value)}</bdi>${entry.disagrees.includes(name) && html`<span class="disagrees">${t("header.disagrees")}</span>`}</dd>
          </div>`,
        )}
      </dl>
      ${pictures?.evidence &&
      html`<label class="slider">
        <span>${t("evidence.label")}</span>
        <input type="range" min="0" max="100" step="5" value=${this.state.opacity} onInput=${(event) => this.setState({ opacity: Number(event.target.value) })} />
        <output>${percent(this.state.opacity / 100, 0)}</output>
      </label>`}
    </div>`;
  }
}

const empty = ({ loading, problem, mode }) => (problem ? shown(problem.message) : t(loading ? "review.waits" : `review.empty.${mode}`));

function Progress({ session }) {
  const { summary, unsent } = session;
  return html`<div class="progress">
    ${summary &&
    html`<progress max=${Math.max(1, summary.images)} value=${summary.read} aria-label=${t("review.progress.label")} />
      <p>${t("review.progress", { read: summary.read, images: summary.images, twice: summary.read_twice, conflicts: summary.conflicts })}</p>`}
    <p class="saved" role="status">${unsent.length ? t("review.saving", { count: number(unsent.length) }) : session.log.length > 0 && t("review.saved")}</p>
  </div>`;
}

// What went wrong with decisions
function notices(session) {
  const { unsent, unsentProblem, refused } = session;
  return html`${unsentProblem &&
    html`<div class="notice" role="alert">
      <p>${t("review.unsaved", { count: number(unsent.length), reason: shown(unsentProblem.message) })}</p>
      <button type="button" onClick=${() => session.retry()}>${t("review.again")}</button>
    </div>`}
    ${refused &&
    html`<div class="notice" role="alert">
      <p>${t("review.refused", { reason: shown(refused.message) })}</p>
      <button type="button" onClick=${() => session.dismiss()}>${t("review.dismiss")}</button>
    </div>`}`;
}

function readings({ readings: found }) {
  return html`<section>
    <h2>${t("review.readings")}</h2>
    <dl>
      ${Object.entries(found ?? {}).map(([reader, decision]) => html`<div><dt><bdi>${shown(reader)}</bdi></dt><dd>${t(`review.decision.${decision}`)}</dd></div>`)}
    </dl>
  </section>`;
}

function last({ log }) {
  if (!log.length) return null;
  return html`<section class="last">
    <h2>${t("review.last")}</h2>
    <ol>
      ${log.map(
        ({ name, decision, time }) => html`<li>
          <span class=${`verdict ${decision}`}>${t(`review.decision.${decision}`)}</span>
          <bdi class="name">${shown(name)}</bdi>
          <time datetime=${time.toISOString()}>${timeOf(time)}</time>
        </li>`,
      )}
    </ol>
  </section>`;
}
