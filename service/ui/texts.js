// All texts of the page, from texts/LANGUAGE.json

const LANGUAGES = ["en"]; // add a file of the same keys for another
// Control characters, and those that change the direction of a text: they would hide what a name says
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

let texts = {};
let language = LANGUAGES[0];

export async function loadTexts() {
  const wanted = navigator.languages.map((tag) => tag.split("-")[0]);
  language = wanted.find((tag) => LANGUAGES.includes(tag)) ?? LANGUAGES[0];
  const answer = await fetch(new URL(`texts/${language}.json`, import.meta.url));
  texts = await answer.json();
  document.documentElement.lang = language;
}

// The text of a key. {name} stands for a value; `count` decides between KEY.one and KEY.other
export function t(key, values = {}) {
  const form = "count" in values ? new Intl.PluralRules(language).select(values.count) : "";
  const text = texts[`${key}.${form}`] ?? texts[`${key}.other`] ?? texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value);
  });
}

export const has = (key) => key in texts;

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}

export const percent = (share, digits = 1) => `${number(100 * share, digits)} %`;

// A probability. Rounding must not make it certain
export function probability(value) {
  if (value > 0.9999 && value < 1) return "> 0.9999";
  if (value > 0 && value < 0.0001) return "< 0.0001";
  return number(value, 4);
}

// A text that is not ours, with its invisible characters made visible
export function shown(text) {
  return String(text).replace(HIDDEN, (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}
