// A list of cards, of which only those on the screen exist

import { Card } from "./card.js";
import { Component, createRef, html } from "./html.js";
import { t } from "./texts.js";

const GAP = 12; // pixels
const LEAST_WIDTH = 336; // of a card
const HEIGHT = 132; // of a card
const AROUND = 1; // rows above and below the screen

export class Grid extends Component {
  list = createRef();
  state = { columns: 1, width: LEAST_WIDTH, first: 0, last: 0 };

  componentDidMount() {
    this.measure = this.measure.bind(this);
    window.addEventListener("scroll", this.measure, { passive: true });
    window.addEventListener("resize", this.measure);
    this.observer = new ResizeObserver(this.measure);
    this.observer.observe(this.list.current);
    this.measure();
  }

  componentDidUpdate(before) {
    if (before.items !== this.props.items) this.measure();
    const { first, last } = this.state;
    this.props.onShown(this.props.items.slice(first, last));
  }

  componentWillUnmount() {
    window.removeEventListener("scroll", this.measure);
    window.removeEventListener("resize", this.measure);
    this.observer.disconnect();
  }

  // Which cards are on the screen
  measure() {
    const box = this.list.current.getBoundingClientRect();
    const columns = Math.max(1, Math.floor((box.width + GAP) / (LEAST_WIDTH + GAP)));
    const width = (box.width - GAP * (columns - 1)) / columns;
    const top = Math.floor(-box.top / (HEIGHT + GAP)) - AROUND;
    const bottom = Math.ceil((window.innerHeight - box.top) / (HEIGHT + GAP)) + AROUND;
    const first = Math.max(0, top) * columns;
    const last = Math.min(this.props.items.length, Math.max(0, bottom) * columns);
    const before = this.state;
    const same = before.first === first && before.last === last && before.columns === columns && before.width === width;
    if (!same) this.setState({ columns, width, first, last });
  }

  // Move the selection, and show it
  keys(event) {
    const { items, selected, onSelect, onOpen } = this.props;
    const { columns } = this.state;
    const page = columns * Math.max(1, Math.floor(window.innerHeight / (HEIGHT + GAP)) - 2);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page };
    const place = items.findIndex((item) => item.id === selected);
    let to = null;
    if (event.key in steps) to = place + steps[event.key];
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = items.length - 1;
    else if (event.key === "Enter" || event.key === " ") onOpen();
    else return;
    event.preventDefault();
    if (to === null) return;
    if ((to < 0 || to >= items.length) && Math.abs(to - place) === columns) return; // no row there
    const target = Math.min(items.length - 1, Math.max(0, to));
    onSelect(items[target].id);
    this.reveal(target);
  }

  reveal(place) {
    const box = this.list.current.getBoundingClientRect();
    const top = box.top + Math.floor(place / this.state.columns) * (HEIGHT + GAP);
    const above = document.querySelector(".toolbar")?.getBoundingClientRect().bottom ?? 0;
    const below = window.innerHeight - (document.querySelector("footer")?.offsetHeight ?? 0);
    if (top < above + GAP) window.scrollBy(0, top - above - GAP);
    else if (top + HEIGHT > below - GAP) window.scrollBy(0, top + HEIGHT - below + GAP);
  }

  render({ items, selected, pictures, card, onSelect, onOpen }, { columns, width, first, last }) {
    const rows = Math.ceil(items.length / columns);
    const here = items.slice(first, last);
    const active = here.some((item) => item.id === selected) ? `card-${selected}` : undefined;
    return html`<div
      ref=${this.list}
      id="results"
      class="grid"
      role="listbox"
      tabindex="0"
      aria-label=${t("grid.label")}
      aria-activedescendant=${active}
      style=${{ height: `${Math.max(0, rows * (HEIGHT + GAP) - GAP)}px` }}
      onKeyDown=${(event) => this.keys(event)}
    >
      ${here.map((item, index) => {
        const place = first + index;
        return html`<${Card}
          key=${item.id}
          item=${item}
          version=${item.version}
          pictures=${pictures.get(item.id)}
          selected=${item.id === selected}
          place=${place}
          count=${items.length}
          card=${card}
          x=${(place % columns) * (width + GAP)}
          y=${Math.floor(place / columns) * (HEIGHT + GAP)}
          width=${width}
          height=${HEIGHT}
          onClick=${() => (onSelect(item.id), onOpen())}
        />`;
      })}
    </div>`;
  }
}
