// The form of a new job

import { problemLine } from "./card.js";
import { Component, html } from "./html.js";
import { Fields, isRare, valueOf } from "./jobs_fields.js";
import { shown, t } from "./texts.js";

const OWN = ["source", "options"]; // all other properties of a job are fields as they are
const LIST = /\.(csv|parquet)$/i;
const ARCHIVE = /\.(zip|tar)$/i;

// Which kind of source it is, of those that may be there
function kindOf(source, kinds) {
  if (kinds.length === 1) return kinds[0];
  if (LIST.test(source)) return "list";
  return ARCHIVE.test(source) ? "archive" : "folder";
}

const joined = (root, path) => (path ? `${root.replace(/\/$/, "")}/${path.replace(/^\//, "")}` : root);

// Random, so that a job that is sent twice is made once
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");

export class NewJob extends Component {
  state = { sources: null, schema: null, root: 0, path: "", values: {}, problem: null, sending: false, key: newKey() };

  async componentDidMount() {
    try {
      this.setState(await this.props.jobs.possible());
    } catch (problem) {
      this.setState({ problem });
    }
  }

  // Another job needs another key
  change(changes) {
    this.setState({ ...changes, key: newKey() });
  }

  get source() {
    const { sources, root, path } = this.state;
    return joined(sources[root].root, path.trim());
  }

  get kind() {
    return kindOf(this.source, this.state.sources[this.state.root].kinds);
  }

  // The properties of the job, and of the options of its source, by name
  get properties() {
    const { properties } = this.state.schema;
    const options = properties.options.anyOf.find(({ title }) => title === this.kind).properties;
    return { job: Object.entries(properties).filter(([name]) => !OWN.includes(name)), options: Object.entries(options) };
  }

  async create(event) {
    event.preventDefault();
    const { values, key } = this.state;
    const { job, options } = this.properties;
    const chosen = (properties) =>
      Object.fromEntries(properties.map(([name, schema]) => [name, valueOf(schema, values[name])]).filter(([, value]) => value !== undefined));
    this.setState({ sending: true, problem: null });
    try {
      await this.props.jobs.create({ source: this.source, options: chosen(options), ...chosen(job) }, key);
      this.props.onDone();
    } catch (problem) {
      this.setState({ problem, sending: false });
    }
  }

  render({ onDone }, { sources, problem, sending }) {
    return html`<form onSubmit=${(event) => this.create(event)}>
      <h2 id="new-job">${t("jobs.new")}</h2>
      ${sources ? this.fields() : !problem && html`<p role="status">${t("jobs.waits")}</p>`}
      ${problem && html`<p class="refusal" role="alert">${problemLine(problem)}</p>`}
      <div class="actions">
        ${sources?.length > 0 && html`<button type="submit" class="primary" disabled=${sending}>${t("jobs.start")}</button>`}
        <button type="button" onClick=${onDone}>${t("detail.close")}</button>
      </div>
    </form>`;
  }

  fields() {
    const { sources, root, path, values } = this.state;
    if (!sources.length) return html`<p>${t("jobs.no_sources")}</p>`;
    const { job, options } = this.properties;
    const set = (name, value) => this.change({ values: { ...values, [name]: value } });
    const made = (properties) => html`<${Fields} properties=${properties} values=${values} onValue=${set} />`;
    return html`<div class="field">
        <label for="root">${t("jobs.root")}</label>
        <select id="root" onChange=${(event) => this.change({ root: Number(event.target.value) })}>
          ${sources.map((each, index) => html`<option value=${index} selected=${index === root}>${shown(each.root)}</option>`)}
        </select>
      </div>
      <div class="field">
        <label for="path">${t("jobs.path")}</label>
        <input id="path" type="text" value=${path} autocomplete="off" spellcheck=${false} aria-describedby="path-help" onInput=${(event) => this.change({ path: event.target.value })} />
        <p id="path-help" class="note" aria-live="polite">${t(`kind.${this.kind}`)} <bdi>${shown(this.source)}</bdi></p>
      </div>
      ${made([...options.filter(([, schema]) => !isRare(schema)), ...job])}
      <details>
        <summary>${t("jobs.more")}</summary>
        ${made(options.filter(([, schema]) => isRare(schema)))}
      </details>`;
  }
}
