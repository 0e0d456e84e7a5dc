// How far a review is, its downloads, and the calibration with it

import { file } from "./api.js";
import { download } from "./csv.js";
import { Component, html } from "./html.js";
import { Calibrate } from "./review_calibration.js";
import { number, percent, shown, t } from "./texts.js";

const FORMS = ["manifest", "corrections", "history"];

export class State extends Component {
  state = { failed: null };

  async save(form) {
    const { session } = this.props;
    try {
      download(`${form}.csv`, await file(`${session.path}/export?form=${form}`), "text/csv");
      this.setState({ failed: null });
    } catch (error) {
      this.setState({ failed: error });
    }
  }

  render({ session }, { failed }) {
    const { summary } = session;
    if (!summary) return null;
    return html`<details class="review-state">
      <summary>${t("review.state")}</summary>
      <div class="columns">
        <section>
          <h2>${t("review.finals")}</h2>
          ${counts(summary.final, (decision) => t(`review.decision.${decision}`))}
        </section>
        <section>
          <h2>${t("review.by_reader")}</h2>
          ${counts(summary.readers, shown)}
        </section>
        <section>
          <h2>${t("review.exports")}</h2>
          <div class="actions">${FORMS.map((form) => html`<button type="button" onClick=${() => this.save(form)}>${t(`review.export.${form}`)}</button>`)}</div>
          ${failed && html`<p role="alert" class="refusal">${t("review.export.failed", { reason: shown(failed.message) })}</p>`}
        </section>
      </div>
      <${Calibrate} job=${session.job} final=${summary.final} />
      ${summary.agreements.length > 0 && agreements(summary.agreements)}
    </details>`;
  }
}

function counts(found, name) {
  const rows = Object.entries(found);
  if (!rows.length) return html`<p>–</p>`;
  return html`<dl>${rows.map(([key, count]) => html`<div><dt><bdi>${name(key)}</bdi></dt><dd>${number(count)}</dd></div>`)}</dl>`;
}

function agreements(found) {
  return html`<section>
    <h2>${t("review.agreement")}</h2>
    <div class="scrolls" role="region" tabindex="0" aria-label=${t("review.agreement")}>
      <table>
        <thead>
          <tr>
            <th scope="col">${t("review.pair")}</th>
            ${["n", "agreement", "kappa", "conflicts"].map((each) => html`<th scope="col" class="number">${t(`review.pair.${each}`)}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${found.map(
            ({ readers, n, agreement, kappa, conflicts }) => html`<tr>
              <th scope="row">${readers.map(shown).join(", ")}</th>
              <td class="number">${number(n)}</td>
              <td class="number">${percent(agreement)}</td>
              <td class="number">${kappa === null ? t("review.pair.none") : number(kappa, 3)}</td>
              <td class="number">${number(conflicts)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}
