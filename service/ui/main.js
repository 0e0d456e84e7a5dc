// Start the page

import { App } from "./app.js";
import { html, render } from "./html.js";
import { loadTexts } from "./texts.js";

await loadTexts();
render(html`<${App} />`, document.getElementById("app"));
