// The page on which images are classified

import { csvOf, download } from "./csv.js";
import { Detail } from "./detail.js";
import { chosen, dropped } from "./files.js";
import { Grid } from "./grid.js";
import { Component, createRef, html } from "./html.js";
import { t } from "./texts.js";
import { Toolbar } from "./toolbar.js";

const WIDE = window.matchMedia("(min-width: 70rem)"); // the details have their place beside the list
const SORTS = {
  added: null,
  certain: (one, other) => other.certainty - one.certainty,
  uncertain: (one, other) => rank(one) - rank(other),
  name: (one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }),
};
const rank = (item) => (item.certainty < 0 ? Infinity : item.certainty);

export class Classify extends Component {
  files = createRef();
  folder = createRef();
  dialog = createRef();
  state = { filter: "all", order: "added", selected: null, opacity: 35, over: false, wide: WIDE.matches };

  componentDidMount() {
    const { work } = this.props;
    this.unlisten = work.listen(() => this.setState({}));
    this.drag = this.drag.bind(this);
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) window.addEventListener(kind, this.drag);
    this.resize = () => this.setState({ wide: WIDE.matches });
    WIDE.addEventListener("change", this.resize);
  }

  componentWillUnmount() {
    this.unlisten();
    this.props.work.look([]);
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) window.removeEventListener(kind, this.drag);
    WIDE.removeEventListener("change", this.resize);
  }

  async add(found) {
    const { work } = this.props;
    for await (const { name, file } of found) {
      work.add(name, file);
      if (this.state.selected === null) this.setState({ selected: work.items.length - 1 });
    }
  }

  drag(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const leaves = event.type === "drop" || (event.type === "dragleave" && event.relatedTarget === null);
    if (this.state.over === leaves) this.setState({ over: !leaves });
    if (event.type === "drop") this.add(dropped(event.dataTransfer));
  }

  chose(event) {
    this.add(chosen([...event.target.files]));
    event.target.value = ""; // the same files can be chosen again
  }

  // The items of the filter, in order. The same list as before while they are the same
  listed() {
    const { filter, order } = this.state;
    const found = this.props.work.items.filter((item) => item.is(filter));
    if (SORTS[order]) found.sort(SORTS[order]);
    const before = this.list ?? [];
    if (found.length !== before.length || found.some((item, index) => item !== before[index])) this.list = found;
    return this.list ?? found;
  }

  open() {
    if (!this.state.wide) this.dialog.current?.showModal();
  }

  clear() {
    this.props.work.clear();
    this.list = [];
    this.setState({ selected: null, filter: "all" });
  }

  render({ work, card }, { over }) {
    return html`<main id="main">
      <h1 class="unseen">${t("nav.classify")}</h1>
      <input ref=${this.files} type="file" multiple hidden aria-label=${t("drop.files")} onChange=${(event) => this.chose(event)} />
      <input ref=${this.folder} type="file" webkitdirectory hidden aria-label=${t("drop.folder")} onChange=${(event) => this.chose(event)} />
      ${work.items.length ? this.results(work, card) : this.invitation()}
      ${over && html`<div class="over" aria-hidden="true"><p>${t("drop.over")}</p></div>`}
    </main>`;
  }

  invitation() {
    return html`<section class="invitation">
      <svg viewBox="0 0 64 64" aria-hidden="true"><path d="M32 8v48M26 14c-10 4-12 14-12 30 6 1 12-1 12-4zM38 14c10 4 12 14 12 30-6 1-12-1-12-4z" /></svg>
      <h2>${t("drop.title")}</h2>
      <p>${t("drop.text")}</p>
      <div class="actions">
        <button type="button" class="primary" onClick=${() => this.files.current.click()}>${t("drop.files")}</button>
        <button type="button" onClick=${() => this.folder.current.click()}>${t("drop.folder")}</button>
      </div>
      <p class="note">${t("drop.privacy")}</p>
    </section>`;
  }

  results(work, card) {
    const { filter, order, selected, opacity, wide } = this.state;
    const items = this.listed();
    const on = {
      cancel: () => work.cancel(),
      resume: () => work.resume(),
      choose: () => this.files.current.click(),
      download: () => download("cxrview.csv", csvOf(work.items), "text/csv"),
      clear: () => this.clear(),
      filter: (each) => this.setState({ filter: each }),
      order: (each) => this.setState({ order: each }),
    };
    const item = work.items[selected];
    return html`<${Toolbar} work=${work} filter=${filter} order=${order} on=${on} />
      <div class="panes" style=${{ "--evidence": opacity / 100 }}>
        ${items.length
          ? html`<${Grid}
              items=${items}
              selected=${selected}
              pictures=${work.pictures}
              card=${card}
              onShown=${(shown) => work.look(shown, item)}
              onSelect=${(id) => this.setState({ selected: id })}
              onOpen=${() => this.open()}
            />`
          : html`<p class="empty">${t("grid.empty")}</p>`}
        ${wide && item && html`<aside aria-label=${t("detail.label")}>${this.detail(item)}</aside>`}
      </div>
      ${!wide &&
      html`<dialog ref=${this.dialog} aria-label=${t("detail.label")} onClick=${(event) => event.target === event.currentTarget && event.target.close()}>
        <button type="button" class="close" onClick=${() => this.dialog.current.close()}>${t("detail.close")}</button>
        <div style=${{ "--evidence": opacity / 100 }}>${item && this.detail(item)}</div>
      </dialog>`}`;
  }

  detail(item) {
    const { work, card } = this.props;
    return html`<${Detail}
      key=${item.id}
      item=${item}
      pictures=${work.pictures.get(item.id)}
      card=${card}
      opacity=${this.state.opacity}
      onOpacity=${(opacity) => this.setState({ opacity })}
      onRetry=${(each) => work.retry(each)}
    />`;
  }
}
