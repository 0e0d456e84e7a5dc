// The calibration of a job's model on the decided images: its button, its progress, and what it changes

import { json } from "./api.js";
import { client } from "./client.js";
import { Copy } from "./detail.js";
import { Component, html } from "./html.js";
import { number, percent, probability, shown, t } from "./texts.js";

const FEWEST = 60; // decided images, before the command is of use
const LABELS = ["frontal", "lateral", "not_chest"];
const HEADS = ["chest", "inverted", "mirrored"];
const LOOK_MILLISECONDS = 1000;
const PERMISSION = "admin";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The command that writes the next version of the model of a job
function command({ model, source }) {
  const [name, version] = model.split("/");
  const [major, minor, patch] = version.split(".");
  const next = `${major}.${minor}.${Number(patch) + 1}`;
  return `python -m training calibrate ${name}/${version} --manifest manifest.csv --images ${quoted(source)} --version ${next} --store model_store`;
}

const share = ({ count, n, ci95: [low, high] }) => t("review.calibrate.share", { of: number(count), n, low: percent(low), high: percent(high) });
const band = ({ low, high }) => t("review.calibrate.band", { low: probability(low), high: probability(high) });

// `final` has the decisions that count: when it changes, the service is asked again
export class Calibrate extends Component {
  state = { found: null, problem: null };
  #timer = null;
  #ended = false;

  get path() {
    return `v1/reviews/${this.props.job.id}/calibrations`;
  }

  componentDidMount() {
    this.load();
  }

  componentDidUpdate({ final }) {
    if (final !== this.props.final) this.load();
  }

  componentWillUnmount() {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  async load() {
    clearTimeout(this.#timer);
    try {
      const found = await json(this.path);
      this.setState({ found });
      if (found.calibrations.some(active) && !this.#ended) this.#timer = setTimeout(() => this.load(), LOOK_MILLISECONDS);
    } catch (problem) {
      this.setState({ problem });
    }
  }

  async start() {
    try {
      await json(this.path, { body: new Blob([]) });
      this.setState({ problem: null });
    } catch (problem) {
      this.setState({ problem });
    }
    this.load();
  }

  render({ job, final }, { found, problem }) {
    return html`<section class="calibrate">
      <h2>${t("review.calibrate")}</h2>
      <p>${t("review.calibrate.text")}</p>
      ${found && offer(found, () => this.start())} ${problem && html`<p role="alert" class="refusal">${shown(problem.message)}</p>`}
      ${found && instead(found, job, final)} ${found?.calibrations.length > 0 && last(found.calibrations[0])}
    </section>`;
  }
}

const active = ({ state }) => state === "reading" || state === "fitting";
const refusal = ({ reason }) => (client.may(PERMISSION) ? reason : t("review.calibrate.denied"));

function offer(found, start) {
  const reason = refusal(found);
  return html`<div class="actions">
    <button type="button" class="primary" disabled=${reason !== null} aria-describedby=${reason && "calibrate-reason"} onClick=${start}>${t("review.calibrate.start")}</button>
    ${reason && html`<p id="calibrate-reason">${t("review.calibrate.refused", { reason: shown(reason) })}</p>`}
  </div>`;
}

// Where the service does not do it, a person can
function instead(found, job, final) {
  const count = LABELS.reduce((sum, label) => sum + (final[label] ?? 0), 0);
  if (refusal(found) === null || count < FEWEST || found.calibrations.some(active)) return null;
  return html`<p>${t("review.calibrate.command")}</p>
    <pre class="command" tabindex="0"><code>${shown(command(job))}</code></pre>
    <${Copy} label=${t("review.calibrate.copy")} text=${() => command(job)} />`;
}

function last(found) {
  const { state, images, read, left_out: out, version, reason, report } = found;
  const told = t(`review.calibrate.${state}`, { read, images, version: shown(version), reason: shown(reason ?? "") });
  return html`<p role="status" class=${state}>${told} ${out > 0 && t("review.calibrate.left_out", { count: out })}</p>
    ${state === "reading" && html`<progress max=${images} value=${read} aria-label=${t("review.calibrate.progress")} />`}
    ${state === "fitting" && html`<progress aria-label=${t("review.calibrate.progress")} />`} ${report && table(report)}
    ${report && html`<p>${t("review.calibrate.switch", { version: shown(version) })} <code>${`CXRVIEW_MODEL=${shown(version)}`}</code></p>`}`;
}

function table(report) {
  const { before, after } = report;
  const rows = [
    [t("review.calibrate.cutoff"), ({ view }) => probability(view.cutoff)],
    [t("review.calibrate.review_band"), ({ view }) => band(view.band)],
    [t("review.calibrate.errors"), ({ errors }) => share(errors)],
    [t("review.calibrate.frontal_errors"), (side) => share(side.frontal_errors)],
    [t("review.calibrate.lateral_errors"), (side) => share(side.lateral_errors)],
    [t("review.calibrate.in_band"), ({ review }) => share(review)],
    ...HEADS.filter((head) => head in after.heads).flatMap((head) => [
      [t("review.calibrate.head_cutoff", { head: t(`head.${head}`) }), ({ heads }) => head in heads && probability(heads[head].cutoff)],
      [t("review.calibrate.head_band", { head: t(`head.${head}`) }), ({ heads }) => head in heads && band(heads[head].band)],
    ]),
  ];
  return html`<div class="scrolls" role="region" tabindex="0" aria-label=${t("review.calibrate.table")}>
      <table>
        <thead>
          <tr>
            <td></td>
            <th scope="col">${t("review.calibrate.before", { model: shown(before.model) })}</th>
            <th scope="col">${t("review.calibrate.after", { model: shown(after.model) })}</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ([name, of]) => html`<tr>
              <th scope="row">${name}</th>
              <td>${of(before)}</td>
              <td>${of(after)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p>${t("review.calibrate.how", { confidence: percent(report.confidence, 0), attained: percent(report.attained) })} ${!report.change_needed && t("review.calibrate.unneeded")}</p>`;
}
