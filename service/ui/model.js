// The card of the model that answers

import { html } from "./html.js";
import { number, percent, shown, t } from "./texts.js";

const LEAST = 0.005; // share of the axis, so that a narrow interval can be seen
const HEADS = ["chest", "rotation", "inverted", "mirrored"];

// The axis begins at a multiple of 5 % below all intervals
function domain(rows) {
  const low = Math.min(...rows.map(({ accuracy }) => accuracy.ci95[0]), 0.95);
  const from = Math.floor(low * 20) / 20;
  return { from, at: (share) => (share - from) / (1 - from) };
}

function Interval({ accuracy, scale }) {
  const [low, high] = accuracy.ci95.map(scale.at);
  const middle = scale.at(accuracy.value);
  const width = Math.max(high - low, LEAST);
  return html`<svg class="interval" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">
    <line class="axis" x1="0" y1="10" x2="1000" y2="10" />
    <rect class="range" x=${1000 * low} y="7" width=${1000 * width} height="6" />
    <rect class="point" x=${1000 * middle - 4} y="2" width="8" height="16" />
  </svg>`;
}

const interval = (share) =>
  share && html`${percent(share.value)} <span class="ci">${t("model.ci", { low: percent(share.ci95[0]), high: percent(share.ci95[1]) })}</span>`;

function Results({ label, rows, columns }) {
  const scale = domain(rows);
  return html`<div class="scrolls" role="region" tabindex="0" aria-label=${label}>
    <table>
      <thead>
        <tr>
          <th scope="col">${t("model.set")}</th>
          <th scope="col" class="number">${t("model.images")}</th>
          <th scope="col" class="chart">
            ${t("model.accuracy")}
            <span class="ends" aria-hidden="true"><span>${percent(scale.from, 0)}</span><span>${percent(1, 0)}</span></span>
          </th>
          ${columns.map(([name]) => html`<th scope="col">${name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr>
            <th scope="row">${shown(row.name)}${row.note && html`<span class="note">${shown(row.note)}</span>`}</th>
            <td class="number">${number(row.images)}</td>
            <td class="chart"><${Interval} accuracy=${row.accuracy} scale=${scale} /><p>${interval(row.accuracy)}</p></td>
            ${columns.map(([, of]) => html`<td>${of(row) ?? "–"}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Cutoffs({ card }) {
  const { heads } = card;
  const rows = [
    [t("head.view"), card.threshold, card.review_band],
    ...HEADS.filter((head) => heads[head]?.threshold !== undefined).map((head) => [t(`head.${head}`), heads[head].threshold, heads[head].review_band]),
  ];
  return html`<dl>
    ${rows.map(([name, cutoff, band]) => html`<div><dt>${name}</dt><dd>${t("model.cutoff", { cutoff: number(cutoff, 3), low: number(band.low, 3), high: number(band.high, 3) })}</dd></div>`)}
    ${heads.rotation && html`<div><dt>${t("head.rotation")}</dt><dd>${t("model.rotation")}</dd></div>`}
    <div><dt>${t("head.evidence")}</dt><dd>${t(heads.evidence ? "model.evidence" : "model.no_evidence")}</dd></div>
    <div><dt>${t("model.input")}</dt><dd>${t("model.pixels", { size: card.preprocess.size })}</dd></div>
  </dl>`;
}

function Source({ source }) {
  const counts = ["frontal", "lateral", "not_chest"].filter((view) => source[view]).map((view) => `${number(source[view])} ${t(`view.${view}`).toLowerCase()}`);
  return html`<li>
    <h3>${shown(source.name)}</h3>
    <p class="note">${t(`use.${source.use}`)}${counts.length > 0 && ` · ${counts.join(", ")}`}</p>
    <p>${shown(source.origin)}</p>
    <p><strong>${t("model.licence")}</strong> ${shown(source.licence)}</p>
    ${source.note && html`<p class="note">${shown(source.note)}</p>`}
  </li>`;
}

export function Model({ card, failed }) {
  if (!card) return html`<main id="main" class="model"><p class="empty" role="status">${failed ?? t("model.waits")}</p></main>`;
  const created = new Date(card.created).toLocaleDateString(document.documentElement.lang, { dateStyle: "long" });
  const heads = HEADS.map((task) => [task, card.head_evaluations.filter((row) => row.task === task)]).filter(([, rows]) => rows.length);
  return html`<main id="main" class="model">
    <header>
      <h1>${shown(card.name)} <span>${shown(card.version)}</span></h1>
      <p class="note">${shown(card.architecture)} · ${created}</p>
    </header>
    <section class="use">
      <h2>${t("model.use")}</h2>
      <p>${shown(card.intended_use)}</p>
    </section>
    <section>
      <h2>${t("model.limits")}</h2>
      <ul>${card.limitations.map((limit) => html`<li>${shown(limit)}</li>`)}</ul>
    </section>
    <section>
      <h2>${t("model.results")}</h2>
      <p>${t("model.results.text")}</p>
      <${Results}
        label=${t("model.results")}
        rows=${card.evaluations}
        columns=${[
          [t("model.sensitivity"), (row) => interval(row.sensitivity)],
          [t("model.specificity"), (row) => interval(row.specificity)],
          [t("model.review"), (row) => percent(row.review.value)],
        ]}
      />
      ${heads.map(
        ([task, rows]) => html`<h3>${t(`head.${task}`)}</h3>
          <${Results} label=${t(`head.${task}`)} rows=${rows} columns=${[]} />`,
      )}
    </section>
    <section>
      <h2>${t("model.cutoffs")}</h2>
      <p>${t("model.cutoffs.text")}</p>
      <${Cutoffs} card=${card} />
    </section>
    <section>
      <h2>${t("model.sources")}</h2>
      <p>${t("model.own_licence")} ${shown(card.licence)}</p>
      <ul class="sources">${card.data.map((source) => html`<${Source} source=${source} />`)}</ul>
    </section>
    <section>
      <h2>${t("model.provenance")}</h2>
      <dl>
        <div class="long"><dt>SHA-256</dt><dd><code>${shown(card.model_sha256)}</code></dd></div>
        ${card.derived_from && html`<div><dt>${t("model.derived")}</dt><dd><code>${shown(card.derived_from)}</code></dd></div>`}
        ${card.calibrated_from && html`<div><dt>${t("model.calibrated")}</dt><dd><code>${shown(card.calibrated_from)}</code></dd></div>`}
        <div class="long"><dt>${t("model.training")}</dt><dd><code>${shown(card.training_command)}</code></dd></div>
        <div class="long"><dt>${t("model.publishing")}</dt><dd><code>${shown(card.publish_command)}</code></dd></div>
      </dl>
    </section>
  </main>`;
}
