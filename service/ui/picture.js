// The picture of an image, with the evidence over the part that the network saw

import { Component, createRef, html } from "./html.js";

const WHOLE = { top: 0, bottom: 1, left: 0, right: 1 };
const at = (share) => `${100 * share}%`;

// Its cells are drawn one pixel each; the browser interpolates between them
class Evidence extends Component {
  canvas = createRef();

  componentDidMount() {
    this.draw();
  }

  componentDidUpdate(before) {
    if (before.map !== this.props.map) this.draw();
  }

  draw() {
    const { map } = this.props;
    Object.assign(this.canvas.current, { width: map.width, height: map.height });
    this.canvas.current.getContext("2d").putImageData(map, 0, 0);
  }

  render({ place }) {
    const style = placed(place);
    return html`<canvas class="evidence" aria-hidden="true" ref=${this.canvas} style=${style} />`;
  }
}

const placed = ({ top, bottom, left, right }) => ({
  top: at(top),
  left: at(left),
  height: at(bottom - top),
  width: at(right - left),
});

// `pictures` is null where there are none; `tensor` shows the network's input instead of the frame
export function Picture({ pictures, tensor = false, alt = "", missing = "" }) {
  if (!pictures) return html`<div class="picture none">${missing}</div>`;
  const frame = tensor ? null : pictures.frame;
  const place = frame ?? WHOLE;
  const cropped = frame && (frame.top > 0 || frame.left > 0 || frame.bottom < 1 || frame.right < 1);
  const ratio = frame ? `${frame.columns} / ${frame.rows}` : "1";
  return html`<div class="picture">
    <div class=${frame && frame.columns > frame.rows ? "frame wide" : "frame"} style=${{ aspectRatio: ratio }}>
      <img src=${frame ? frame.url : pictures.thumbnail} alt=${alt} draggable=${false} />
      ${pictures.evidence && html`<${Evidence} map=${pictures.evidence} place=${place} />`}
      ${cropped && html`<span class="part" style=${placed(frame)} />`}
    </div>
  </div>`;
}
