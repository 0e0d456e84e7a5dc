// Posts files with Node's fetch: node post.mjs MODE URL FILE...
// Prints a line a file, in their order: the status, a tab, the body.
import { readFile } from "node:fs/promises";

const [mode, url, ...files] = process.argv.slice(2);
const headers = mode === "alone" ? { connection: "close" } : {};

async function post(file) {
  const response = await fetch(url, { method: "POST", body: await readFile(file), headers });
  return `${response.status}\t${await response.text()}`;
}

if (mode === "parallel") {
  for (const line of await Promise.all(files.map(post))) console.log(line);
} else {
  for (const file of files) console.log(await post(file));
}
