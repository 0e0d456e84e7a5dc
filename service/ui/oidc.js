// Signing in with an identity provider: the authorisation code flow with PKCE, of a public client
//
// References: OpenID Connect Core 1.0 (3.1), OAuth 2.0 for Browser-Based Applications, RFC 7636 (PKCE),
// RFC 9207 (iss). The provider has a window of its own, so the page keeps its files; state, nonce, verifier and
// tokens are in memory only.

import { access } from "./access.js";
import { address, Problem } from "./api.js";
import { Observable } from "./observable.js";

const CONFIGURATION = "ui/sign-in.json";
const RETURN = "ui/signed-in.html"; // it sends on the channel what the provider answers
const CHANNEL = "cxrview-sign-in";
const WINDOW = "popup,width=520,height=720";
const RANDOM_BYTES = 32;
const CLOCKS_SECONDS = 300; // by which those of browser and provider may differ
const SHORTEST_SECONDS = 30; // of a token whose provider does not say how long it is valid

const fault = (code, detail) => new Problem({ code: `sign_in.${code}`, title: "", detail });

class Oidc extends Observable {
  configuration = null; // {issuer, client_id, scope}, where people can sign in
  waiting = false; // for the window of the provider
  problem = null;
  #attempt = null; // an AbortController
  #discovered = null;

  async load() {
    const answer = await fetch(address(CONFIGURATION)).catch(() => null);
    this.configuration = answer?.ok ? await answer.json() : null; // without it, the page asks for a key
    this.changed();
  }

  // Ask the provider for its endpoints early: browsers open a window only soon after a click
  prepare() {
    if (this.configuration) this.#discover().catch(() => {});
  }

  async signIn() {
    this.cancel();
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#show(true, null);
    try {
      const session = await this.#session(attempt.signal);
      if (this.#attempt !== attempt) return;
      this.#show(false, null);
      access.give(session.token, session.renew);
    } catch (problem) {
      if (this.#attempt === attempt) this.#show(false, problem);
    }
  }

  cancel() {
    this.#attempt?.abort();
    this.#attempt = null;
    this.#show(false, null);
  }

  #show(waiting, problem) {
    Object.assign(this, { waiting, problem });
    this.changed();
  }

  #discover() {
    this.#discovered ??= discovered(this.configuration.issuer).catch((problem) => {
      this.#discovered = null; // another try may succeed
      throw problem;
    });
    return this.#discovered;
  }

  async #session(signal) {
    if (!globalThis.crypto?.subtle) throw fault("insecure", "");
    const { client_id, scope } = this.configuration;
    const endpoints = await this.#discover();
    const [state, nonce, verifier] = [random(), random(), random()];
    const redirect_uri = address(RETURN);
    const answered = returned(state, signal);
    open(endpoints.authorization_endpoint, {
      response_type: "code",
      client_id,
      redirect_uri,
      scope,
      state,
      nonce,
      code_challenge: await challengeOf(verifier),
      code_challenge_method: "S256",
    });
    const answer = await answered;
    if (answer.has("error")) throw fault("refused", answer.get("error_description") ?? answer.get("error"));
    if (answer.has("iss") && answer.get("iss") !== this.configuration.issuer) throw fault("invalid", "iss");
    const tokens = await this.#tokens({ grant_type: "authorization_code", code: answer.get("code") ?? "", redirect_uri, code_verifier: verifier });
    const claims = checked(tokens.id_token, this.configuration);
    if (claims.nonce !== nonce) throw fault("invalid", "nonce");
    return this.#renewable(tokens, claims.sub);
  }

  async #tokens(values) {
    const { token_endpoint: place } = await this.#discover();
    const body = new URLSearchParams({ ...values, client_id: this.configuration.client_id });
    const tokens = await documentOf(place, { method: "POST", body });
    if (typeof tokens.access_token !== "string" || tokens.token_type?.toLowerCase() !== "bearer") throw fault("invalid", "access_token");
    return tokens;
  }

  // The token, and how to get another one when it has expired. Before, another one would be refused as well
  #renewable({ access_token: token, refresh_token, expires_in }, subject) {
    const expires = Date.now() + 1000 * Math.max(Number(expires_in) || 0, SHORTEST_SECONDS);
    if (!refresh_token) return { token };
    const renew = async () => {
      if (Date.now() < expires) throw fault("invalid", "access_token");
      const tokens = await this.#tokens({ grant_type: "refresh_token", refresh_token });
      if (tokens.id_token && checked(tokens.id_token, this.configuration).sub !== subject) throw fault("invalid", "sub");
      return this.#renewable({ refresh_token, ...tokens }, subject);
    };
    return { token, renew };
  }
}

function encoded(bytes) {
  return btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const random = () => encoded(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES)));
const challengeOf = async (verifier) => encoded(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));

function open(place, parameters) {
  const url = new URL(place);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  if (window.open(url, "_blank", WINDOW) === null) throw fault("blocked", "");
}

// What the provider answers to the request with this state. Other answers are of other tabs, or forged
function returned(state, signal) {
  const channel = new BroadcastChannel(CHANNEL);
  const answer = new Promise((resolve, reject) => {
    channel.addEventListener("message", ({ data }) => {
      const parameters = new URLSearchParams(String(data));
      if (parameters.get("state") === state) resolve(parameters);
    });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  const close = () => channel.close();
  answer.then(close, close);
  return answer;
}

// A JSON document of the provider
async function documentOf(place, options = {}) {
  let answer;
  try {
    answer = await fetch(place, { ...options, credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" });
  } catch (error) {
    throw fault("unreachable", error.message);
  }
  const found = await answer.json().catch(() => null);
  if (found === null || typeof found !== "object") throw fault("unreachable", `HTTP ${answer.status}`);
  if (!answer.ok) throw fault("refused", String(found.error_description ?? found.error ?? `HTTP ${answer.status}`));
  return found;
}

async function discovered(issuer) {
  const found = await documentOf(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
  const { origin, protocol } = new URL(issuer);
  if (found.issuer !== issuer) throw fault("invalid", "issuer");
  for (const name of ["authorization_endpoint", "token_endpoint"]) {
    if (!URL.canParse(found[name]) || new URL(found[name]).protocol !== protocol) throw fault("invalid", name);
  }
  // The page may send to no other origin
  if (new URL(found.token_endpoint).origin !== origin) throw fault("invalid", "token_endpoint");
  if (found.code_challenge_methods_supported?.includes("S256") === false) throw fault("invalid", "code_challenge_methods_supported");
  return found;
}

// The claims of an identity token. It comes from the provider itself, over TLS, so its signature says nothing
// more (OpenID Connect Core 1.0, 3.1.3.7)
function checked(token, { issuer, client_id: client }) {
  let claims;
  try {
    const text = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text), (each) => each.charCodeAt(0))));
  } catch {
    throw fault("invalid", "id_token");
  }
  if (claims.iss !== issuer) throw fault("invalid", "iss");
  const audience = [claims.aud].flat();
  if (!audience.includes(client) || (audience.length > 1 && claims.azp !== client)) throw fault("invalid", "aud");
  if (!(claims.exp > Date.now() / 1000 - CLOCKS_SECONDS)) throw fault("invalid", "exp");
  return claims;
}

export const oidc = new Oidc();
