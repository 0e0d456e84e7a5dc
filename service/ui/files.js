// The files that a person drops or chooses

const TAR_MAGIC = "ustar";
const TAR_AT = 257;

// All files of a drop, with the paths of those in folders; hidden ones are left out
export async function* dropped(transfer) {
  // The list is emptied as soon as this function waits
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  for (const entry of entries) if (entry) yield* below(entry, "");
}

async function* below(entry, prefix) {
  if (entry instanceof File) {
    yield { name: entry.name, file: entry };
    return;
  }
  if (prefix && entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    if (file) yield { name: prefix + entry.name, file };
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)).catch(() => []);
    if (!some.length) return; // a browser gives a hundred at a time
    for (const each of some) yield* below(each, `${prefix}${entry.name}/`);
  }
}

// Those of an <input>
export function* chosen(list) {
  for (const file of list) {
    const name = file.webkitRelativePath || file.name;
    if (!name.split("/").some((part) => part.startsWith(".")) || !file.webkitRelativePath) yield { name, file };
  }
}

// By content, as the service does it
export async function isArchive(file) {
  const start = new Uint8Array(await file.slice(0, TAR_AT + TAR_MAGIC.length).arrayBuffer());
  const zip = start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;
  return zip || String.fromCharCode(...start.slice(TAR_AT)) === TAR_MAGIC;
}
