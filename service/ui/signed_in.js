// The page to which an identity provider returns: it passes the answer to the page that asked, and closes

import { loadTexts, t } from "./texts.js";

const CHANNEL = new BroadcastChannel("cxrview-sign-in");

CHANNEL.postMessage(location.search);
history.replaceState(null, "", location.pathname); // the code has no place in the history
await loadTexts();
document.title = t("sign_in.title");
document.querySelector("h1").textContent = t("sign_in.close");
window.close();
