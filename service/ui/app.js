// The frame of all pages: navigation, access, and the line that says what this is not

import { access } from "./access.js";
import { json } from "./api.js";
import { Classify } from "./classify.js";
import { client } from "./client.js";
import { Component, html } from "./html.js";
import { Jobs } from "./jobs.js";
import { JobsPage } from "./jobs_page.js";
import { Model } from "./model.js";
import { oidc } from "./oidc.js";
import { ReviewPage } from "./review_page.js";
import { Reviews } from "./reviews.js";
import { SignIn } from "./sign_in.js";
import { shown, t } from "./texts.js";
import { Work } from "./work.js";

const PAGES = { "": "classify", "#jobs": "jobs", "#review": "review", "#model": "model" };

export class App extends Component {
  work = new Work();
  jobs = new Jobs();
  reviews = new Reviews();
  state = { page: pageOf(location), card: null, failed: null };

  componentDidMount() {
    window.addEventListener("hashchange", () => {
      this.setState({ page: pageOf(location) });
      window.scrollTo(0, 0);
    });
    // Leaving would lose what was answered
    window.addEventListener("beforeunload", (event) => (this.work.running || this.reviews.unsaved) && event.preventDefault());
    for (const each of [access, oidc, this.jobs, this.reviews]) each.listen(() => this.setState({}));
    this.load();
    client.learn();
  }

  async load() {
    try {
      this.setState({ card: await json("v1/model"), failed: null });
    } catch (error) {
      this.setState({ failed: t("model.failed", { reason: shown(error.message) }) });
    }
  }

  componentDidUpdate() {
    document.title = t(`title.${this.state.page}`);
  }

  // Those that the client may see
  pages() {
    const hidden = { jobs: !this.jobs.permitted, review: !this.reviews.permitted };
    return Object.entries(PAGES).filter(([, name]) => !hidden[name]);
  }

  render(_, { page, card, failed }) {
    return html`<a class="skip" href="#main" onClick=${skip}>${t("nav.skip")}</a>
      <header class="top">
        <a class="brand" href="#"><img src="ui/icon.svg" alt="" width="28" height="28" />cxrview</a>
        <nav aria-label=${t("nav.label")}>
          ${this.pages().map(
            ([hash, name]) => html`<a href=${hash || "#"} aria-current=${page === name ? "page" : undefined}>${t(`nav.${name}`)}</a>`,
          )}
        </nav>
        <p class="session">
          ${card && html`<a class="model-name" href="#model">${shown(`${card.name}/${card.version}`)}</a>`}
          ${access.given && html`<button type="button" onClick=${() => access.forget()}>${t(oidc.configuration ? "sign_in.out" : "key.forget")}</button>`}
          ${!access.given && access.needed && html`<button type="button" onClick=${() => access.ask()}>${t(oidc.configuration ? "sign_in.title" : "key.enter")}</button>`}
        </p>
      </header>
      ${page === "jobs" && html`<${JobsPage} jobs=${this.jobs} />`}
      ${page === "review" && html`<${ReviewPage} reviews=${this.reviews} />`}
      ${page === "model" && html`<${Model} card=${card} failed=${failed} />`}
      ${page === "classify" && html`<${Classify} work=${this.work} card=${card} />`}
      <footer><p>${t("disclaimer")}</p></footer>
      <${SignIn} />`;
  }
}

const pageOf = ({ hash }) => PAGES[hash] ?? "classify";

// The hash is the page's, so the link moves the focus itself
function skip(event) {
  event.preventDefault();
  const target = document.querySelector("#results") ?? document.querySelector("#main");
  if (!target.hasAttribute("tabindex")) target.setAttribute("tabindex", "-1");
  target.focus();
}
