// The dialog that asks for an API key

import { access } from "./access.js";
import { Component, createRef, html } from "./html.js";
import { t } from "./texts.js";

export class SignIn extends Component {
  dialog = createRef();
  key = createRef();

  componentDidMount() {
    this.unlisten = access.listen(() => this.update());
    this.update();
  }

  componentWillUnmount() {
    this.unlisten();
  }

  update() {
    const dialog = this.dialog.current;
    if (access.asking && !dialog.open) {
      dialog.showModal();
      this.key.current.focus();
    }
    if (!access.asking && dialog.open) dialog.close();
    this.setState({});
  }

  give(event) {
    event.preventDefault();
    const key = this.key.current.value.trim();
    if (!key) return;
    this.key.current.value = "";
    access.give(key);
  }

  render() {
    return html`<dialog ref=${this.dialog} class="sign-in" aria-labelledby="sign-in-title" onClose=${() => access.asking && access.dismiss()}>
      <form onSubmit=${(event) => this.give(event)}>
        <h2 id="sign-in-title">${t("key.title")}</h2>
        <p>${t("key.text")}</p>
        ${access.refused && html`<p class="refusal" role="alert">${t("key.refused")}</p>`}
        <label for="key">${t("key.label")}</label>
        <input id="key" ref=${this.key} type="password" autocomplete="off" spellcheck=${false} required />
        <div class="actions">
          <button type="submit" class="primary">${t("key.give")}</button>
          <button type="button" onClick=${() => access.dismiss()}>${t("key.later")}</button>
        </div>
      </form>
    </dialog>`;
  }
}
