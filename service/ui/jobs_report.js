// What a job found: refused images by code, its certificate, and what the headers say

import { html } from "./html.js";
import { has, number, percent, shown, t } from "./texts.js";

function Codes({ codes }) {
  const rows = Object.entries(codes ?? {}).sort(([, one], [, other]) => other - one);
  if (!rows.length) return null;
  return html`<section>
    <h3>${t("job.codes")}</h3>
    <dl>${rows.map(([code, images]) => html`<div><dt><code>${shown(code)}</code></dt><dd>${number(images)}</dd></div>`)}</dl>
  </section>`;
}

function Certificate({ certificate }) {
  const { valid, errors, views, review, images_per_second: rate } = certificate;
  const rows = Object.entries(views).map(([view, images]) => [t(`view.${view}`), number(images)]);
  return html`<section>
    <h3>${t("job.certificate")}</h3>
    <p class=${valid ? "valid" : "refusal"}>${t(valid ? "certificate.valid" : "certificate.invalid")}</p>
    ${errors.length > 0 && html`<ul>${errors.map((each) => html`<li>${shown(each)}</li>`)}</ul>`}
    <dl>
      ${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
      <div><dt>${t("mark.review")}</dt><dd>${number(review)}</dd></div>
      ${rate !== null && html`<div><dt>${t("certificate.rate")}</dt><dd>${t("progress.rate", { rate: number(rate, rate < 10 ? 1 : 0) })}</dd></div>`}
    </dl>
  </section>`;
}

// Each claim of the header, compared with the answer from the pixels
function Headers({ header }) {
  const rows = Object.entries(header);
  if (!rows.length) return null;
  return html`<section class="whole">
    <h3>${t("job.headers")}</h3>
    <p class="note">${t("job.headers.text")}</p>
    <div class="scrolls" role="region" tabindex="0" aria-label=${t("job.headers")}>
      <table>
        <thead>
          <tr>
            <th scope="col">${t("claim.attribute")}</th>
            ${["agrees", "disagrees", "share", "silent"].map((each) => html`<th scope="col" class="number">${t(`claim.${each}`)}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ([name, { agrees, disagrees, silent }]) => html`<tr>
              <th scope="row">${has(`claim.${name}`) ? t(`claim.${name}`) : shown(name)}</th>
              <td class="number">${number(agrees)}</td>
              <td class="number">${number(disagrees)}</td>
              <td class="number">${agrees + disagrees ? percent(disagrees / (agrees + disagrees)) : "–"}</td>
              <td class="number">${number(silent)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </section>`;
}

export function JobReport({ job, codes, certificate }) {
  return html`<${Codes} codes=${codes} />
    ${certificate && html`<${Certificate} certificate=${certificate} />
      <${Headers} header=${certificate.header} />`}
    ${job.state === "done" && !certificate && html`<p class="note" role="status">${t("jobs.waits")}</p>`}`;
}
