// An image in the list

import { Component, html } from "./html.js";
import { Picture } from "./picture.js";
import { Scale } from "./scale.js";
import { probability, shown, t } from "./texts.js";

const REFUSED = html`<svg viewBox="0 0 32 32" aria-hidden="true"><path d="M8 3h11l6 6v20H8zM19 3v6h6M13 16l6 7M19 16l-6 7" /></svg>`;

// The review band, if the card is that of the version that answered
export function bandOf(card, answer, kind) {
  if (card?.model_sha256 !== answer.model.sha256) return null;
  return (kind === "pfi" ? card : card.heads.chest)?.review_band ?? null;
}

export const problemTitle = (problem) => problem.title || t(`problem.${problem.code}`);
export const problemLine = (problem) => `${problemTitle(problem)}: ${shown(problem.message)}`;

// What is to be noticed about an answer
export function marks(item) {
  if (item.state !== "done") return [];
  const { review, orientation, warnings } = item.answer;
  const turned = orientation && (orientation.rotation_degrees || orientation.inverted || orientation.mirrored);
  return [
    review && "review",
    item.contradicted && "header",
    turned && "orientation",
    warnings.length > 0 && "warnings",
  ].filter(Boolean);
}

export class Card extends Component {
  shouldComponentUpdate(next) {
    return ["item", "version", "pictures", "selected", "place", "count", "card", "x", "y", "width"].some(
      (name) => next[name] !== this.props[name],
    );
  }

  render({ item, pictures, selected, place, count, card, x, y, width, height, onClick }) {
    return html`<div
      id=${`card-${item.id}`}
      class=${`card ${item.state}`}
      role="option"
      aria-selected=${selected}
      aria-posinset=${place + 1}
      aria-setsize=${count}
      style=${{ width: `${width}px`, height: `${height}px`, transform: `translate(${x}px, ${y}px)` }}
      onClick=${onClick}
    >
      <${Picture} pictures=${pictures} missing=${item.state === "refused" && REFUSED} />
      <div class="facts">
        <p class="name" title=${shown(item.name)}><bdi>${shown(item.name)}</bdi></p>
        ${this.answer(item, card)}
      </div>
    </div>`;
  }

  answer(item, card) {
    if (item.state === "refused") {
      return html`<p class="verdict refused">${problemTitle(item.problem)}</p>
        <p class="detail">${shown(item.problem.detail)}</p>`;
    }
    if (item.state !== "done") return html`<p class=${`verdict ${item.state}`}>${t(`state.${item.state}`)}</p>`;
    const { view, pfi, threshold, chest, chest_threshold: cutoff } = item.answer;
    const decides = view === "not_chest" ? { kind: "chest", value: chest, cutoff } : { kind: "pfi", value: pfi, cutoff: threshold };
    return html`<p class=${`verdict ${view}`}>
        ${t(`view.${view}`)}<span class="pfi">${t(`scale.${decides.kind}.value`, { value: probability(decides.value) })}</span>
      </p>
      <${Scale} ...${decides} band=${bandOf(card, item.answer, decides.kind)} small />
      <p class="marks">${marks(item).map((mark) => html`<span class=${`mark-${mark}`}>${t(`mark.${mark}`)}</span>`)}</p>`;
  }
}
