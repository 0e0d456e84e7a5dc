// How the page makes elements: Preact, with templates of htm instead of a build step

import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

export { Component, Fragment, createRef, render } from "./vendor/preact.mjs";
export const html = htm.bind(h);
