// The answers as a CSV file, with the columns of `cxrview classify --csv`

const COLUMNS = {
  name: (item) => item.name,
  view: ({ answer }) => answer?.view,
  pfi: ({ answer }) => answer?.pfi,
  threshold: ({ answer }) => answer?.threshold,
  chest: ({ answer }) => answer?.chest,
  chest_threshold: ({ answer }) => answer?.chest_threshold,
  review: ({ answer }) => answer?.review,
  rotation_degrees: ({ answer }) => answer?.orientation?.rotation_degrees,
  rotation_probability: ({ answer }) => answer?.orientation?.rotation_probability,
  inverted: ({ answer }) => answer?.orientation?.inverted,
  inverted_probability: ({ answer }) => answer?.orientation?.inverted_probability,
  mirrored: ({ answer }) => answer?.orientation?.mirrored,
  mirrored_probability: ({ answer }) => answer?.orientation?.mirrored_probability,
  view_position: ({ answer }) => answer?.header?.view_position,
  header_agrees: ({ answer }) => answer?.header?.agrees,
  body_part_examined: ({ answer }) => answer?.header?.body_part_examined,
  body_part_agrees: ({ answer }) => answer?.header?.body_part_agrees,
  sop_instance_uid: ({ answer }) => answer?.sop_instance_uid,
  model: ({ answer }) => answer && `${answer.model.name}/${answer.model.version}`,
  warnings: ({ answer }) => answer?.warnings.join(" "),
  error: ({ problem }) => problem?.code,
  detail: ({ problem }) => problem?.detail,
};
// A text that begins so would be a formula in a spreadsheet; an apostrophe before it says that it is none
const BEGINS_FORMULA = /^[=+\-@\t\r\n']/;

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = BEGINS_FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csvOf(items) {
  const rows = items.filter((item) => item.settled).map((item) => Object.values(COLUMNS).map((of) => cell(of(item))));
  return [Object.keys(COLUMNS), ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}

export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 0);
}
