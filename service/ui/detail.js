// All that is known of one image

import { access } from "./access.js";
import { address } from "./api.js";
import { bandOf, problemTitle } from "./card.js";
import { Component, html } from "./html.js";
import { Picture } from "./picture.js";
import { Scale } from "./scale.js";
import { has, percent, shown, t } from "./texts.js";

const CONFIRMED_MILLISECONDS = 4000;

// A line that sends the file in a shell, without the key
export function curlLine(name) {
  const file = name.split("/").pop();
  // eslint-disable-next-line no-control-regex
  const plain = !/[\u0000-\u001f\u007f]/.test(file);
  const quoted = plain ? `'@${file.replaceAll("'", "'\\''")}'` : `$'@${escaped(file)}'`;
  const key = access.given ? ` -H "Authorization: Bearer $KEY"` : "";
  return `curl${key} --data-binary ${quoted} '${address("v1/classify")}'`;
}

const escaped = (text) =>
  // eslint-disable-next-line no-control-regex
  text.replace(/[\\'\u0000-\u001f\u007f]/g, (each) => `\\x${each.charCodeAt(0).toString(16).padStart(2, "0")}`);

// Without TLS, browsers have no clipboard for pages but the old way
async function copied(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  (document.querySelector("dialog[open]") ?? document.body).append(field); // a dialog keeps the focus within
  field.select();
  document.execCommand("copy");
  field.remove();
}

export class Copy extends Component {
  state = { copied: false };

  async copy() {
    await copied(this.props.text());
    this.setState({ copied: true });
    setTimeout(() => this.setState({ copied: false }), CONFIRMED_MILLISECONDS);
  }

  render({ label }, { copied }) {
    return html`<button type="button" onClick=${() => this.copy()}>
      ${label}<span class="confirmed" role="status">${copied ? t("copy.done") : ""}</span>
    </button>`;
  }
}

export class Detail extends Component {
  state = { tensor: false };

  render({ item, pictures, card }) {
    return html`<article class="detail" aria-labelledby="detail-name">
      <header>
        <h2 id="detail-name"><bdi>${shown(item.name)}</bdi></h2>
        ${verdict(item)}
      </header>
      ${item.state === "refused" && this.refused(item)}
      ${item.state === "done" && this.answered(item, pictures, card)}
    </article>`;
  }

  refused({ problem }) {
    const { item, onRetry } = this.props;
    return html`<p>${shown(problem.detail)}</p>
      ${has(`problem.${problem.code}.help`) && html`<p>${t(`problem.${problem.code}.help`)}</p>`}
      <dl>
        <div><dt>${t("detail.code")}</dt><dd><code>${shown(problem.code)}</code></dd></div>
        ${problem.status && html`<div><dt>${t("detail.status")}</dt><dd>${problem.status}</dd></div>`}
      </dl>
      <div class="actions">
        ${item.file && html`<button type="button" onClick=${() => onRetry(item)}>${t("detail.retry")}</button>`}
        ${item.file && !item.archive && html`<${Copy} label=${t("copy.curl")} text=${() => curlLine(item.name)} />`}
      </div>`;
  }

  answered(item, pictures, card) {
    const { answer } = item;
    return html`${this.figure(item, pictures)}
      <${Scale} kind="pfi" value=${answer.pfi} cutoff=${answer.threshold} band=${bandOf(card, answer, "pfi")} />
      ${answer.chest !== null &&
      html`<${Scale}
        kind="chest"
        value=${answer.chest}
        cutoff=${answer.chest_threshold}
        band=${bandOf(card, answer, "chest")}
      />`}
      <dl>${facts(answer).map(([name, value, kind]) => html`<div class=${kind}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${answer.warnings.length > 0 && warnings(answer)}
      <div class="actions">
        <${Copy} label=${t("copy.json")} text=${() => JSON.stringify(answer, null, 2)} />
        ${item.file && html`<${Copy} label=${t("copy.curl")} text=${() => curlLine(item.name)} />`}
      </div>`;
  }

  figure(item, pictures) {
    const { tensor } = this.state;
    const choose = (event) => this.setState({ tensor: event.target.value === "tensor" });
    const shows = tensor || !pictures?.frame ? "tensor" : "frame";
    return html`<figure>
      <${Picture}
        pictures=${pictures}
        tensor=${tensor}
        alt=${t(`picture.${shows}.alt`)}
        missing=${t(item.pictures === "none" ? "picture.none" : "picture.waiting")}
      />
      ${pictures &&
      html`<figcaption>
        <fieldset class="choice">
          <legend class="unseen">${t("picture.legend")}</legend>
          ${["frame", "tensor"].map(
            (each) => html`<label><input type="radio" name="picture" value=${each} checked=${shows === each} onChange=${choose} />${t(`picture.${each}`)}</label>`,
          )}
        </fieldset>
        ${evidence(this.props, pictures)}
      </figcaption>`}
    </figure>`;
  }
}

function verdict(item) {
  const { state, answer, problem } = item;
  if (state === "refused") return html`<p class="verdict large refused">${problemTitle(problem)}</p>`;
  if (state !== "done") return html`<p class="verdict large waiting">${t(`state.${state}`)}</p>`;
  return html`<p class=${`verdict large ${answer.view}`}>${t(`view.${answer.view}`)}</p>
    <p>${sentence(item)}</p>`;
}

function evidence({ opacity, onOpacity }, pictures) {
  if (!pictures.evidence) return html`<p class="note">${t("evidence.none")}</p>`;
  return html`<label class="slider">
      <span>${t("evidence.label")}</span>
      <input type="range" min="0" max="100" step="5" value=${opacity} onInput=${(event) => onOpacity(Number(event.target.value))} />
      <output>${percent(opacity / 100, 0)}</output>
    </label>
    <p class="note legend">
      <span><i class="swatch frontal" />${t("evidence.frontal")}</span>
      <span><i class="swatch lateral" />${t("evidence.lateral")}</span>
    </p>`;
}

// What the answer means for this image, in words
function sentence(item) {
  const { view, review, header } = item.answer;
  const words = [t(review ? "sentence.review" : "sentence.sure")];
  if (view === "not_chest") words.push(t("sentence.not_chest"));
  if (header?.agrees === false) words.push(t("sentence.header"));
  if (header?.body_part_agrees === false) words.push(t("sentence.body_part"));
  return words.join(" ");
}

function facts(answer) {
  const { header, orientation, sop_instance_uid: uid, model } = answer;
  const claim = (value, agrees) => html`${value === null ? t("header.absent") : html`<bdi>${shown(value)}</bdi>`}
    ${agrees !== null && html`<span class=${agrees ? "agrees" : "disagrees"}>${t(agrees ? "header.agrees" : "header.disagrees")}</span>`}`;
  return [
    header && [t("fact.view_position"), claim(header.view_position, header.agrees)],
    header && [t("fact.body_part"), claim(header.body_part_examined, header.body_part_agrees)],
    ...(orientation ? lies(orientation) : []),
    uid && [t("fact.sop_instance_uid"), html`<code>${shown(uid)}</code>`, "long"],
    [t("fact.model"), html`<code>${shown(`${model.name}/${model.version}`)}</code>`],
  ].filter(Boolean);
}

function lies({ rotation_degrees: degrees, rotation_probability: turned, ...found }) {
  const yes = (value, share) => t(value ? "orientation.yes" : "orientation.no", { share: percent(share) });
  return [
    degrees !== null && [t("fact.rotation"), t(`orientation.${degrees}`, { share: percent(turned) })],
    found.inverted !== null && [t("fact.inverted"), yes(found.inverted, found.inverted_probability)],
    found.mirrored !== null && [t("fact.mirrored"), yes(found.mirrored, found.mirrored_probability)],
  ].filter(Boolean);
}

function warnings({ warnings: names }) {
  return html`<section>
    <h3>${t("fact.warnings")}</h3>
    <ul>${names.map((name) => html`<li>${has(`warning.${name}`) ? t(`warning.${name}`) : shown(name)}</li>`)}</ul>
  </section>`;
}
