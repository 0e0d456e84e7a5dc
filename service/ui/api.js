// Requests to the API of the same origin

import { access } from "./access.js";

const BUSY = new Set([429, 503]); // it is full, stops, or limits this client
const FIRST_WAIT_SECONDS = 1;
const LONGEST_WAIT_SECONDS = 30;
const ATTEMPTS = 6; // without an answer

// A problem of RFC 9457, or one of the page's own
export class Problem extends Error {
  constructor({ code, title, detail, status = null }) {
    super(detail);
    Object.assign(this, { code, title, detail, status });
  }
}

const UNREADABLE = new Set(["NotReadableError", "NotFoundError", "SecurityError"]);

// The problem of any error, as of one that the browser throws
export function problemOf(error) {
  if (error instanceof Problem) return error;
  return new Problem({ code: UNREADABLE.has(error.name) ? "unreadable_file" : "page_error", title: "", detail: error.message });
}

// Relative to the page, which a proxy may serve below a path
export const address = (path) => new URL(path, document.baseURI).href;

// The answer of the service. While it is full, it is asked again, unless not `patient`; where it wants a key, the
// page asks for one. `files` are those within the body
export async function request(path, { body, files = body ? [body] : [], headers = {}, signal, waits = () => {}, patient = true } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const { key, headers: signed } = access.signed();
    let answer;
    try {
      answer = await fetch(address(path), {
        method: body === undefined ? "GET" : "POST",
        headers: { ...headers, ...signed },
        body,
        signal,
        credentials: "same-origin",
      });
    } catch (error) {
      signal?.throwIfAborted();
      for (const each of files) await readable(each);
      if (!patient || attempt >= ATTEMPTS) throw new Problem({ code: "unreachable", title: "", detail: error.message });
      await pause(backOff(attempt), signal, waits);
      continue;
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await access.another(key, signal);
      attempt = 0;
      continue;
    }
    const seconds = retryAfter(answer);
    if (patient && BUSY.has(answer.status) && (seconds !== null || attempt < ATTEMPTS)) {
      await answer.body?.cancel();
      await pause(seconds ?? backOff(attempt), signal, waits);
      continue;
    }
    throw await refusalOf(answer);
  }
}

// The JSON of an answer
export const json = async (path, options) => whole(await request(path, options), "json", options?.signal);

// The bytes of an answer
export const file = async (path) => whole(await request(path), "blob");

// What an answer is as a whole; it may end too early, as when the service dies
async function whole(answer, kind, signal) {
  try {
    return await answer[kind]();
  } catch (error) {
    signal?.throwIfAborted();
    throw new Problem({ code: "cut_off", title: "", detail: error.message });
  }
}

// Answers of a batch, one by one as they arrive
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const found = (rest + (value ?? "")).split("\n");
    rest = found.pop(); // it may go on
    for (const line of found) if (line) yield JSON.parse(line);
    if (done) break;
  }
  if (rest) yield JSON.parse(rest);
}

function retryAfter(answer) {
  const value = answer.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(value) ? Number(value) : null;
}

const backOff = (attempt) => Math.min(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), LONGEST_WAIT_SECONDS);

async function pause(seconds, signal, waits) {
  waits(seconds);
  // Requests that were refused together must not come back together
  const milliseconds = 1000 * seconds * (1 + Math.random() / 4);
  await new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
  waits(0);
}

// A file that was moved or changed since it was chosen cannot be sent; that is no fault of the network
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch (error) {
    throw new Problem({ code: "unreadable_file", title: "", detail: error.message });
  }
}

async function refusalOf(answer) {
  try {
    const { code, title, detail } = await answer.json();
    return new Problem({ code, title, detail, status: answer.status });
  } catch {
    return new Problem({ code: "not_the_service", title: "", detail: `HTTP ${answer.status}`, status: answer.status });
  }
}
