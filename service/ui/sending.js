// Files as the bodies of requests, and their answers

import { lines, request } from "./api.js";
import { isArchive } from "./files.js";

const CLASSIFY = "v1/classify";
const BATCH = "v1/classify/batch";
const NO_IMAGE = "unrecognised_format";

// A type of a form or of text would be a promise that the bytes are so
const bytesOf = (file) => file.slice(0, file.size, "application/octet-stream");

// The answer for one file, with its pictures if they are to be explained. `options` are those of a request
export async function one(file, query, options) {
  const answer = await request(`${CLASSIFY}${query}`, { ...options, body: bytesOf(file) });
  return answer.json();
}

// The answers for the files of an archive, as they arrive
export const archive = async (file, options) => lines(await request(BATCH, { ...options, body: bytesOf(file) }));

// The answers for several files, named by their place, in any order. The form is one blob: of a FormData, the browser
// fetches file after file while it sends
export async function several(files, options) {
  const boundary = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("-");
  const parts = files.flatMap((file, place) => [head(boundary, place), file, "\r\n"]);
  const body = new Blob([...parts, `--${boundary}--\r\n`]);
  const headers = { "Content-Type": `multipart/form-data; boundary=${boundary}` };
  return lines(await request(BATCH, { ...options, body, headers, files }));
}

const head = (boundary, name) => `--${boundary}\r\nContent-Disposition: form-data; name="files"; filename="${name}"\r\n\r\n`;

// Whether a file that was refused among several may have another answer alone: it is an archive, or the service failed
export async function mayDiffer(file, { status, code }) {
  return status >= 500 || (code === NO_IMAGE && (await isArchive(file).catch(() => true)));
}
