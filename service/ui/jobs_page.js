// The page of jobs on archives

import { problemLine } from "./card.js";
import { Component, createRef, html } from "./html.js";
import { Job } from "./jobs_job.js";
import { NewJob } from "./jobs_new.js";
import { shown, t } from "./texts.js";

export class JobsPage extends Component {
  form = createRef();
  confirm = createRef();
  state = { creating: false, cancelling: null };

  componentDidMount() {
    const { jobs } = this.props;
    this.unlisten = jobs.listen(() => this.setState({}));
    this.look = () => !document.hidden && jobs.permitted && !jobs.disabled && jobs.look();
    document.addEventListener("visibilitychange", this.look);
    jobs.watch();
  }

  componentWillUnmount() {
    this.unlisten();
    document.removeEventListener("visibilitychange", this.look);
    this.props.jobs.rest();
  }

  componentDidUpdate(_, before) {
    const { creating, cancelling } = this.state;
    if (creating && !before.creating) this.form.current.showModal();
    if (cancelling !== null && before.cancelling === null) this.confirm.current.showModal();
  }

  // Cancelling is final, so it is asked once more
  act(job, action) {
    if (action === "cancel") this.setState({ cancelling: job.id });
    else this.props.jobs.act(job.id, action);
  }

  cancel() {
    this.props.jobs.act(this.state.cancelling, "cancel");
    this.confirm.current.close();
  }

  render({ jobs }) {
    const { permitted, disabled, list, problem } = jobs;
    const usable = permitted && !disabled && list !== null;
    return html`<main id="main" class="jobs">
      <header>
        <h1>${t("nav.jobs")}</h1>
        ${usable && html`<button type="button" class="primary" onClick=${() => this.setState({ creating: true })}>${t("jobs.new")}</button>`}
      </header>
      ${usable && problem && html`<p class="refusal" role="alert">${problemLine(problem)}</p>`}
      ${usable ? this.listed(list) : html`<p class="empty" role="status">${this.reason()}</p>`}
      ${this.dialogs()}
    </main>`;
  }

  // Why there is no list
  reason() {
    const { permitted, disabled, problem } = this.props.jobs;
    if (permitted === false) return t("jobs.forbidden");
    if (disabled) return t("jobs.disabled");
    if (problem) return problemLine(problem);
    return t("jobs.waits");
  }

  listed(list) {
    if (!list.length) return html`<p class="empty">${t("jobs.none")}</p>`;
    return html`<ul class="list">
      ${list.map(
        (job) => html`<li key=${job.id}>
          <${Job} job=${job} jobs=${this.props.jobs} onAct=${(action) => this.act(job, action)} />
        </li>`,
      )}
    </ul>`;
  }

  dialogs() {
    const { creating, cancelling } = this.state;
    const { jobs } = this.props;
    return html`${creating &&
      html`<dialog ref=${this.form} class="form" aria-labelledby="new-job" onClose=${() => this.setState({ creating: false })}>
        <${NewJob} jobs=${jobs} onDone=${() => this.form.current?.close()} />
      </dialog>`}
      ${cancelling !== null &&
      html`<dialog ref=${this.confirm} class="form question" aria-labelledby="cancel-job" onClose=${() => this.setState({ cancelling: null })}>
        <div>
          <h2 id="cancel-job">${t("jobs.cancel.title")}</h2>
          <p><bdi>${shown(jobs.job(cancelling)?.source ?? "")}</bdi></p>
          <p>${t("jobs.cancel.text")}</p>
          <div class="actions">
            <button type="button" class="primary" onClick=${() => this.cancel()}>${t("jobs.cancel.yes")}</button>
            <button type="button" onClick=${() => this.confirm.current.close()}>${t("jobs.cancel.no")}</button>
          </div>
        </div>
      </dialog>`}`;
  }
}
