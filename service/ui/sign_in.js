// The dialog that asks for an API key, or leads to the identity provider

import { access } from "./access.js";
import { Component, createRef, html } from "./html.js";
import { oidc } from "./oidc.js";
import { shown, t } from "./texts.js";

export class SignIn extends Component {
  dialog = createRef();
  key = createRef();

  componentDidMount() {
    const unlisten = [access.listen(() => this.update()), oidc.listen(() => this.setState({}))];
    this.unlisten = () => unlisten.forEach((each) => each());
    this.update();
  }

  componentWillUnmount() {
    this.unlisten();
  }

  update() {
    const dialog = this.dialog.current;
    if (access.asking && !dialog.open) {
      oidc.prepare();
      dialog.showModal();
      (dialog.querySelector(".provider") ?? this.key.current).focus();
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

  closed() {
    oidc.cancel();
    if (access.asking) access.dismiss();
  }

  render() {
    const { configuration } = oidc;
    return html`<dialog ref=${this.dialog} class="sign-in" aria-labelledby="sign-in-title" onClose=${() => this.closed()}>
      <form onSubmit=${(event) => this.give(event)}>
        <h2 id="sign-in-title">${t(configuration ? "sign_in.title" : "key.title")}</h2>
        <p>${t(configuration ? "sign_in.text" : "key.text")}</p>
        ${access.refused && html`<p class="refusal" role="alert">${t(configuration ? "sign_in.expired" : "key.refused")}</p>`}
        ${configuration && provider()}
        <label for="key">${t("key.label")}</label>
        <input id="key" ref=${this.key} type="password" autocomplete="off" spellcheck=${false} required />
        <div class="actions">
          <button type="submit" class=${configuration ? "" : "primary"}>${t("key.give")}</button>
          <button type="button" onClick=${() => access.dismiss()}>${t("key.later")}</button>
        </div>
      </form>
    </dialog>`;
  }
}

function provider() {
  const { waiting, problem } = oidc;
  return html`<div class="actions">
      <button type="button" class="primary provider" onClick=${() => oidc.signIn()}>${t("sign_in.title")}</button>
      ${waiting && html`<button type="button" onClick=${() => oidc.cancel()}>${t("toolbar.cancel")}</button>`}
    </div>
    <p class="note" role="status">${waiting ? t("sign_in.waits") : ""}</p>
    ${problem && html`<p class="refusal" role="alert">${t(`problem.${problem.code}`, { detail: shown(problem.message) })}</p>`}
    <p class="or">${t("sign_in.or")}</p>`;
}
