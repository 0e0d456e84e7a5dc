// Fields of a form, made from a JSON schema as the API describes it

import { html } from "./html.js";
import { has, shown, t } from "./texts.js";

const NUMBERS = new Set(["integer", "number"]);

export const optionLabel = (name) => (has(`option.${name}`) ? t(`option.${name}`) : shown(name));

// The schema without the choice of null, which is an empty field
function plain(schema) {
  const [only] = (schema.anyOf ?? []).filter(({ type }) => type !== "null");
  return only ? { ...schema, ...only } : schema;
}

// Those with a number that fits most archives come last
export const isRare = (schema) => typeof schema.default === "number";

// The value of a field, as the API wants it; undefined where it is the default
export function valueOf(schema, text) {
  const { type, default: usual } = plain(schema);
  if (type === "boolean") return text === usual ? undefined : text;
  if (text === undefined || text === "" || text === String(usual ?? "")) return undefined;
  if (NUMBERS.has(type)) return Number(text);
  return type === "array" ? text.split(",").map((each) => each.trim()).filter(Boolean) : text;
}

function limits({ type, minimum, exclusiveMinimum, maximum }) {
  const whole = type === "integer";
  const above = exclusiveMinimum === undefined ? undefined : exclusiveMinimum + (whole ? 1 : 0);
  return { min: minimum ?? above, max: maximum, step: whole ? 1 : "any" };
}

function control(id, schema, value, onValue) {
  const { type, format, enum: choices, default: usual } = schema;
  const common = { id, "aria-describedby": `${id}-help` };
  const input = (event) => onValue(event.target.value);
  if (type === "boolean") return html`<input ...${common} type="checkbox" checked=${value ?? usual} onChange=${(event) => onValue(event.target.checked)} />`;
  if (choices) {
    return html`<select ...${common} value=${value ?? usual} onChange=${input}>
      ${choices.map((each) => html`<option value=${each}>${shown(each)}</option>`)}
    </select>`;
  }
  const text = value ?? (usual === null || usual === undefined ? "" : String(usual));
  if (NUMBERS.has(type)) return html`<input ...${common} type="number" ...${limits(schema)} value=${text} onInput=${input} />`;
  return html`<input ...${common} type=${format === "date" ? "date" : "text"} value=${text} autocomplete="off" spellcheck=${false} onInput=${input} />`;
}

// `values` has the texts of fields that were changed, by name
export function Fields({ properties, values, onValue }) {
  const field = ([name, given]) => {
    const schema = plain(given);
    const id = `option-${name}`;
    return html`<div key=${name} class=${schema.type === "boolean" ? "field check" : "field"}>
      <label for=${id}>${optionLabel(name)}</label>
      ${control(id, schema, values[name], (value) => onValue(name, value))}
      <p id=${`${id}-help`} class="note">${schema.description ? shown(schema.description.replaceAll("\n", " ")) : ""}</p>
    </div>`;
  };
  return html`<div class="fields">${properties.map(field)}</div>`;
}
