// Start the page

import { App } from "./app.js";
import { html, render } from "./html.js";
import { oidc } from "./oidc.js";
import { loadTexts } from "./texts.js";

await Promise.all([loadTexts(), oidc.load()]);
render(html`<${App} />`, document.getElementById("app"));
