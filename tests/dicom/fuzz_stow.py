"""Send damaged Store requests to a running service: each is answered as the Standard says.

    python tests/dicom/fuzz_stow.py --cases 20000 --seed 1

A case fails if its answer has another status than STATUSES, is no DICOM JSON or problem, names an
object that was not sent, or takes more than SECONDS. At the end the service must be ready, hold no
bytes, and have logged nothing of the patient. The exit status is 1 if anything failed.
test_fuzz_stow.py runs a few cases.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom import Dataset

sys.path.insert(0, str(Path(__file__).parent.parent))
from images import dicom, radiograph  # pytest is not there to find it
from live import Live, serving

STATUSES = {200, 202, 400, 406, 409, 413, 415}
SECONDS = 20.0
PATIENT = "Zebra"
STUDY = "1.2.826.0.1.3680043.8.498.471198"
BOUNDARIES = [b"B", b"b c=d", b"-", b"'()+_,-./:=?", b"x" * 70]
TYPES = [
    'multipart/related; type="application/dicom"; boundary="{}"',
    'Multipart/Related;boundary="{}";type=application/dicom;start="<a@b>"',
    'multipart/related; boundary="{}"',
]
WRONG_TYPES = [
    "",
    "application/dicom",
    "multipart/related",
    'multipart/related; type="application/dicom+json"; boundary="{}"',
    'multipart/form-data; boundary="{}"',
    'multipart/related; boundary="{}";' + ";" * 40,
    'multipart/related; type="application/dicom; boundary="{}',
]
HEADERS = [
    b"Content-Type: application/dicom\r\n",
    b"content-type:application/dicom;\r\n transfer-syntax=1.2.840.10008.1.2.1\r\n",
    b"Content-Type: application/dicom\r\nContent-Length: 12\r\nContent-ID: <1>\r\n",
    b"",
    b"Content-Type: text/plain\r\n",
    b"Content-Type\r\n",
    b": x\r\n",
    b"X: " + b"y" * 9000 + b"\r\n",
    b"X: \0\r\n",
    b" folded: x\r\n",
]

Request = tuple[str, dict[str, str], bytes]  # path, header fields, body


def instance(number: int) -> bytes:
    """A small radiograph of the patient."""
    named = {
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "MediaStorageSOPInstanceUID": f"{STUDY}.1.{number}",
        "SeriesInstanceUID": f"{STUDY}.1",
        "StudyInstanceUID": STUDY,
        "PatientName": f"{PATIENT}^Quagga",
    }
    return dicom(radiograph(40, 40, seed=number), **named)


INSTANCES = [instance(number) for number in range(8)]


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 2, 3, 50])]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice([b"\r\n", b"\r", b"\n", b"\0", b"--", rng.randbytes(9), b" " * 70])


def _repeat(data: bytearray, rng: random.Random) -> None:
    at, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    data[at:at] = data[at : min(end, at + 3000)]


def _line_ends(data: bytearray, rng: random.Random) -> None:
    data[:] = data.replace(b"\r\n", rng.choice([b"\n", b"\r"]), rng.choice([1, 2, -1]))


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    *(_flip, _flip, _cut, _remove, _insert, _repeat, _line_ends)
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same with a few mutations."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if found:
            rng.choice(MUTATIONS)(found, rng)
    return bytes(found)


def content(boundary: bytes, rng: random.Random) -> bytes:
    """What a part holds."""
    whole = rng.choice(INSTANCES)
    kind = rng.random()
    if kind < 0.5:
        return whole
    if kind < 0.7:
        return damaged(whole, rng)
    alike = [b"", b"\r\n", b"\r\n--", b"\r\n--" + boundary + b"x", b"\r\n--" + boundary, b"PNG"]
    return whole[: rng.randrange(len(whole))] + rng.choice(alike) * rng.choice([1, 3, 1500])


def request(case: int, seed: int) -> Request:
    """The request of one case, always the same."""
    rng = random.Random(f"{seed}-{case}")
    boundary = rng.choice(BOUNDARIES)
    parts = [
        b"--%b%b\r\n%b\r\n%b\r\n"
        % (
            boundary,
            rng.choice([b"", b"", b"", b" \t"]),
            rng.choice(HEADERS[:4] if rng.random() < 0.8 else HEADERS),
            content(boundary, rng),
        )
        for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))
    ]
    body = rng.choice([b"", b"", b"preamble\r\n", b"\r\n"]) + b"".join(parts)
    body += b"--" + boundary + rng.choice([b"--", b"--\r\n", b"--\r\nepilogue", b"--" + body])
    if rng.random() < 0.3:
        body = damaged(body, rng)
    kind = rng.choice(TYPES if rng.random() < 0.9 else WRONG_TYPES)
    path = rng.choice(["", "", f"/{STUDY}", f"/{STUDY}.9", f"/{PATIENT}"])
    accept = rng.choice(
        ["*/*", "application/dicom+json", "*/*, application/dicom+xml;q=0", "text/a"]
    )
    headers = {"Content-Type": kind.replace("{}", boundary.decode()), "Accept": accept}
    return f"/dicom-web/studies{path}?lane={rng.choice(['backfill', 'interactive'])}", headers, body


def pieces(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """The body as chunks of any size."""
    while body:
        size = rng.choice([1, 7, 100, 4096, len(body)])
        yield body[:size]
        body = body[size:]


def judged(status: int, kind: str, answer: bytes, body: bytes) -> str:
    """The status and a problem's code; what is wrong with the answer begins with FAILED."""
    if status not in STATUSES or PATIENT.encode() in answer:
        return f"FAILED: {status}, or it names the patient"
    if kind == "application/problem+json":
        return f"{status} {json.loads(answer)['code']}"
    found = Dataset.from_json(answer.decode())
    stored = [item.ReferencedSOPInstanceUID for item in found.get("ReferencedSOPSequence", [])]
    if any(uid.encode() not in body for uid in stored):
        return "FAILED: stored what was not sent"
    failed = any(name in found for name in ("FailedSOPSequence", "OtherFailuresSequence"))
    right = {(True, False): 200, (True, True): 202, (False, True): 409}[bool(stored), failed]
    return f"{status}" if status == right else f"FAILED: {status} instead of {right}"


def outcome(connection: http.client.HTTPConnection, case: int, seed: int) -> str:
    """The status of one case; what is wrong with its answer begins with FAILED."""
    path, headers, body = request(case, seed)
    rng, begin = random.Random(case), time.monotonic()
    sent = pieces(body, rng) if rng.random() < 0.3 and len(body) < 50_000 else body
    try:
        connection.request("POST", path, sent, headers, encode_chunked=sent is not body)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"FAILED: {type(error).__name__}"
    if time.monotonic() - begin > SECONDS:
        return "FAILED: too slow"
    return judged(response.status, response.getheader("content-type", ""), answer, body)


def run(live: Live, cases: range, seed: int) -> Counter[str]:
    """Send the cases; then the service must be as it was before."""
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
    found: Counter[str] = Counter()
    for case in cases:
        result = outcome(connection, case, seed)
        found[result] += 1
        if result.startswith("FAILED"):
            print(f"case {case}: {result}", flush=True)
    connection.request("GET", "/metrics")
    metrics = connection.getresponse().read().decode()
    connection.close()
    for line in ("cxrview_held_bytes 0.0", "cxrview_ready 1.0", 'images{lane="backfill"} 0.0'):
        if line not in metrics:
            found[f"FAILED: no {line} at the end"] += 1
    log = live.log.read_text()
    for text in (PATIENT, STUDY, "Traceback", "internal_error"):
        if text in log:
            found[f"FAILED: {text} in the log"] += 1
    return found


def main() -> int:
    """Run the cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "results").mkdir()
        file = folder / "destinations.toml"
        file.write_text('[destinations.folder]\nkind = "folder"\npath = "results"\n')
        settings = {"destinations": str(file), "model": "swift/1.1.0", "access_log": "true"}
        with serving(folder / "log", **settings) as live:
            before, threads = live.memory("VmRSS"), live.threads
            found = run(live, range(arguments.cases), arguments.seed)
            grown = live.memory("VmRSS") - before
            print(f"threads: {threads} at first, {live.threads} at last")
    for result, count in found.most_common():
        print(f"{count:7} {result}")
    print(f"memory grew by {grown / 1e6:.0f} MB")
    return int(any(result.startswith("FAILED") for result in found))


if __name__ == "__main__":
    sys.exit(main())
