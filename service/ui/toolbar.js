// Progress, filters, order and downloads of the list

import { html } from "./html.js";
import { FILTERS } from "./items.js";
import { number, t } from "./texts.js";

export const ORDERS = ["added", "certain", "uncertain", "name"];

function status(work) {
  const { settled, counts, waits } = work;
  const left = counts.all - settled;
  const rate = work.rate.lately;
  if (work.stopped && left) return t("progress.stopped", { settled, all: counts.all });
  if (!work.running || !left) return t("progress.done", { count: settled });
  const parts = [t("progress.running", { settled, all: counts.all })];
  if (waits) parts.push(t("progress.waits", { seconds: waits }));
  else if (rate) {
    parts.push(t("progress.rate", { rate: number(rate, rate < 10 ? 1 : 0) }));
    if (!work.archives) parts.push(remaining(left / rate));
  }
  return parts.join(" · ");
}

const remaining = (seconds) =>
  seconds < 90 ? t("progress.seconds", { left: Math.ceil(seconds) }) : t("progress.minutes", { left: Math.ceil(seconds / 60) });

export function Toolbar({ work, filter, order, on }) {
  const { settled, counts } = work;
  const left = counts.all - settled;
  return html`<section class="toolbar" aria-label=${t("toolbar.label")}>
    <div class="progress">
      <progress max=${Math.max(1, counts.all)} value=${settled} aria-label=${t("progress.label")} />
      <p>${status(work)}</p>
      <div class="actions">
        ${work.running && left > 0 && html`<button type="button" onClick=${on.cancel}>${t("toolbar.cancel")}</button>`}
        ${work.stopped && left > 0 && html`<button type="button" class="primary" onClick=${on.resume}>${t("toolbar.resume")}</button>`}
        <button type="button" onClick=${on.choose}>${t("toolbar.add")}</button>
        <button type="button" disabled=${settled === 0} onClick=${on.download}>${t("toolbar.csv")}</button>
        <button type="button" onClick=${on.clear}>${t("toolbar.clear")}</button>
      </div>
    </div>
    <div class="view">
      <fieldset class="filters">
        <legend class="unseen">${t("filter.legend")}</legend>
        ${FILTERS.map(
          (each) => html`<label class=${each}>
            <input type="radio" name="filter" value=${each} checked=${filter === each} onChange=${() => on.filter(each)} />
            ${t(`filter.${each}`)} <span class="count">${number(counts[each])}</span>
          </label>`,
        )}
      </fieldset>
      <label class="order">
        ${t("order.label")}
        <select value=${order} onChange=${(event) => on.order(event.target.value)}>
          ${ORDERS.map((each) => html`<option value=${each}>${t(`order.${each}`)}</option>`)}
        </select>
      </label>
    </div>
    <p class="unseen" role="status">${settled && !left ? t("progress.done", { count: settled }) : ""}</p>
  </section>`;
}
