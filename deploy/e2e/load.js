// Radiographs at a constant rate, as clients with keys and tokens send them: most one by one, some of them for the
// lane of backfills, some within an archive, and a few that are no radiographs. Variables: URL; KEYS, a JSON list of keys
// and tokens; GOOD and BAD, JSON lists of paths; ARCHIVE, the path of a zip; RATE, requests/s; SECONDS; OUT, a path for
// what came of them.
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const keys = JSON.parse(__ENV.KEYS);
const opened = (paths) => JSON.parse(paths).map((path) => open(path, 'b'));
const [good, bad] = [opened(__ENV.GOOD), opened(__ENV.BAD)];
const archive = open(__ENV.ARCHIVE, 'b');
const answered = new Counter('answered'); // images
const refused = new Counter('refused'); // requests: 503 or 429, with Retry-After
const unreadable = new Counter('unreadable'); // requests: what is no radiograph, and told so
const failed = new Counter('failed'); // requests: anything else, and no answer too
const latency = new Trend('latency', true); // of interactive images

export const options = {
  summaryTrendStats: ['count', 'med', 'p(95)', 'p(99)', 'max'],
  scenarios: {
    images: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE),
      timeUnit: '1s',
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: 400,
      gracefulStop: '180s',
    },
  },
};

function send(path, body) {
  const key = keys[__ITER % keys.length];
  return http.post(__ENV.URL + path, body, {
    headers: { Authorization: `Bearer ${key}` },
    timeout: '180s', // of the lane of backfills: it waits while people are served
  });
}

function count(answer, images) {
  if (answer.status === 200) {
    answered.add(images);
  } else if ([429, 503].includes(answer.status) && answer.headers['Retry-After']) {
    refused.add(1);
  } else {
    failed.add(1);
    console.error(`status ${answer.status} ${answer.error}`);
  }
}

export default function () {
  const one = (files) => files[Math.floor(Math.random() * files.length)];
  const kind = Math.random();
  if (kind < 0.03) {
    const answer = send('/v1/classify', one(bad));
    if ([415, 422].includes(answer.status)) unreadable.add(1);
    else count(answer, 0);
  } else if (kind < 0.08) {
    const answer = send('/v1/classify/batch', archive);
    count(answer, answer.body ? answer.body.trim().split('\n').length : 0);
  } else if (kind < 0.2) {
    count(send('/v1/classify?lane=backfill', one(good)), 1);
  } else {
    const answer = send('/v1/classify', one(good));
    count(answer, 1);
    if (answer.status === 200) latency.add(answer.timings.duration);
  }
}

export function handleSummary(data) {
  const value = (name, kind) => (data.metrics[name] ? data.metrics[name].values[kind] : 0);
  const found = {
    answered: value('answered', 'count'),
    refused: value('refused', 'count'),
    unreadable: value('unreadable', 'count'),
    failed: value('failed', 'count'),
    dropped: value('dropped_iterations', 'count'),
    p50_ms: value('latency', 'med'),
    p99_ms: value('latency', 'p(99)'),
  };
  return { [__ENV.OUT]: JSON.stringify(found) };
}
