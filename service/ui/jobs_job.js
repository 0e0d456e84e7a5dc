// A job in the list: its progress, what can be asked of it, and its details

import { problemLine } from "./card.js";
import { download } from "./csv.js";
import { Component, html } from "./html.js";
import { actionsOf } from "./jobs.js";
import { optionLabel } from "./jobs_fields.js";
import { JobReport } from "./jobs_report.js";
import { number, percent, shown, t } from "./texts.js";

const FILES = { results: "ndjson", certificate: "json", "header-audit": "csv", worklist: "csv" };
const OUTCOMES = ["done", "skipped", "failed"];

export class Job extends Component {
  state = { loading: null, problem: null };

  async save(name) {
    const { job, jobs } = this.props;
    this.setState({ loading: name, problem: null });
    try {
      const blob = await jobs.file(job.id, name);
      download(`cxrview-${job.id}-${name}.${FILES[name]}`, blob, blob.type);
    } catch (problem) {
      this.setState({ problem });
    }
    this.setState({ loading: null });
  }

  render({ job, jobs, onAct }) {
    const { counts } = job;
    const opened = jobs.opened === job.id;
    const problem = this.state.problem ?? jobs.problems.get(job.id);
    return html`<article class=${`job ${job.state}`} aria-labelledby=${`source-${job.id}`}>
      <header>
        <h2 id=${`source-${job.id}`}><bdi>${shown(job.source)}</bdi></h2>
        <p class="state" role="status">${t(`job.${job.state}`)}</p>
      </header>
      <progress max=${Math.max(1, counts.found)} value=${counts.found - counts.open} aria-label=${t("job.progress")} />
      <p class="line">${line(job)}</p>
      ${job.reason && html`<p class="refusal">${shown(job.reason)}</p>`}
      ${problem && html`<p class="refusal" role="alert">${problemLine(problem)}</p>`}
      <div class="row">
        <p class="outcomes">
          ${OUTCOMES.map((each) => html`<span class=${each}>${t(`outcome.${each}`)} <span class="count">${number(counts[each])}</span></span>`)}
        </p>
        <div class="actions">
          ${actionsOf(job).map((action) => html`<button type="button" onClick=${() => onAct(action)}>${t(`action.${action}`)}</button>`)}
          <button type="button" aria-expanded=${opened} onClick=${() => jobs.open(opened ? null : job.id)}>${t("job.details")}</button>
        </div>
      </div>
      ${opened && this.details(job, jobs)}
    </article>`;
  }

  details(job, jobs) {
    return html`<div class="details">
      <dl>${facts(job).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      <${JobReport} job=${job} codes=${jobs.codes} certificate=${jobs.certificate} />
      <section class="whole">
        <h3>${t("job.files")}</h3>
        <p class="note">${t("job.files.text")}</p>
        <div class="actions">
          ${Object.keys(FILES)
            .filter((name) => name === "results" || job.state === "done")
            .map(
              (name) => html`<button type="button" disabled=${this.state.loading !== null} onClick=${() => this.save(name)}>
                ${t(this.state.loading === name ? "job.loading" : `file.${name}`)}
              </button>`,
            )}
        </div>
      </section>
    </div>`;
  }
}

// How far it is
function line({ state, counts, all_found: all, images_per_second: rate, eta_seconds: left }) {
  const settled = counts.found - counts.open;
  const parts = [all ? t("job.of", { settled, found: counts.found }) : t("job.so_far", { settled, found: counts.found })];
  if (state === "running" && rate) parts.push(t("progress.rate", { rate: number(rate, rate < 10 ? 1 : 0) }));
  if (state === "running" && left !== null) parts.push(remaining(left));
  return parts.join(" · ");
}

function remaining(seconds) {
  if (seconds < 90) return t("progress.seconds", { left: Math.ceil(seconds) });
  if (seconds < 2 * 3600) return t("progress.minutes", { left: Math.ceil(seconds / 60) });
  return t("progress.hours", { left: Math.ceil(seconds / 3600) });
}

const moment = (text) => new Date(text).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });

function facts({ id, model, format, options, max_errors: errors, created, started, ended }) {
  return [
    [t("job.id"), html`<code>${shown(id)}</code>`],
    [t("fact.model"), html`<code>${shown(model)}</code>`],
    [t("option.format"), shown(format)],
    [t("option.max_errors"), percent(errors)],
    ...Object.entries(options).map(([name, value]) => [optionLabel(name), html`<bdi>${shown([value].flat().join(", "))}</bdi>`]),
    [t("job.created"), moment(created)],
    started && [t("job.started"), moment(started)],
    ended && [t("job.ended"), moment(ended)],
  ].filter(Boolean);
}
