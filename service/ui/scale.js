// A probability on a scale, with its cutoff and its review band

import { html } from "./html.js";
import { number, probability, t } from "./texts.js";

const at = (share) => `${100 * share}%`;

// `band` is {low, high} or null; `kind` names the texts
export function Scale({ kind, value, cutoff, band, small }) {
  const label = t(`scale.${kind}.label`, {
    value: probability(value),
    cutoff: number(cutoff, 3),
    low: band ? number(band.low, 3) : "",
    high: band ? number(band.high, 3) : "",
  });
  const track = html`<div class="track" role="img" aria-label=${label}>
    ${band && html`<span class="band" style=${{ left: at(band.low), width: at(band.high - band.low) }} />`}
    <span class="cutoff" style=${{ left: at(cutoff) }} />
    <span class="mark" style=${{ left: at(value) }} />
  </div>`;
  if (small) return html`<div class=${`scale small ${kind}`}>${track}</div>`;
  return html`<div class=${`scale ${kind}`}>
    ${track}
    <div class="ends" aria-hidden="true"><span>${t(`scale.${kind}.low`)}</span><span>${t(`scale.${kind}.high`)}</span></div>
    <p class="key">
      <span><i class="swatch mark" />${t(`scale.${kind}.value`, { value: probability(value) })}</span>
      <span><i class="swatch cutoff" />${t("scale.cutoff", { cutoff: number(cutoff, 3) })}</span>
      ${band && html`<span><i class="swatch band" />${t("scale.band", { low: number(band.low, 3), high: number(band.high, 3) })}</span>`}
    </p>
  </div>`;
}
