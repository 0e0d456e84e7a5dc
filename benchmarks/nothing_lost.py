"""Is a result lost, or delivered twice? The receiver is killed, and its destination fails and lies.

    python benchmarks/nothing_lost.py [--objects 2000] [--kills 10] [--out FILE.json]

So many objects come by C-STORE from 4 senders, and as many by STOW-RS from 4. Their reports go to
an Orthanc, behind a server that is away for a while, answers 503, or says 200 and stores nothing.
Each sender repeats an object until it is told success. At the end, Orthanc must hold exactly one
report of each. Needs Orthanc where .ci/tools puts it (CXRVIEW_TOOLS).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import moment

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from archive_servers import Orthanc, free_port, orthanc
from destination_servers import CLOSE, Asked, Said, http_peer
from dicom_peer import CR, EXPLICIT, Stored, peer
from live import Live, serving
from receiving import file_of

SENDERS = 4  # of each protocol
AWAY_SECONDS = 60.0
SHARE_503, SHARE_LIES = 0.1, 0.05  # of the requests to the destination
PATIENCE_SECONDS = 900.0  # for what is left after the last object was told success
DESTINATIONS = """
[destinations.orthanc]
kind = "stow"
url = "{url}"
first_delay_seconds = 0.2
max_delay_seconds = 5
timeout_seconds = 5
"""


@dataclass
class Destination:
    """An Orthanc behind a server that fails in all the ways that senders must survive."""

    archive: str  # URL of its DICOMweb
    random: random.Random
    away_from: float = float("inf")  # by time.monotonic()
    did: Counter[str] = field(default_factory=Counter)

    def answer(self, asked: Asked) -> Said:
        """Away, 503, a lie, or what Orthanc says."""
        if self.away_from <= time.monotonic() < self.away_from + AWAY_SECONDS:
            self.did["away"] += 1
            return CLOSE
        chance = self.random.random()
        if chance < SHARE_503:
            self.did["503"] += 1
            return 503, {}, b"busy"
        if chance < SHARE_503 + SHARE_LIES:
            self.did["200 that stored nothing"] += 1
            return 200, {"Content-Type": "application/dicom+json"}, b"{}"
        self.did["forwarded"] += 1
        return self._forward(asked)

    def _forward(self, asked: Asked) -> Said:
        names = ("content-type", "accept")
        headers = {name: asked.headers[name] for name in names if name in asked.headers}
        request = urllib.request.Request(self.archive + asked.path, asked.body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                kind = answer.headers.get("Content-Type", "")
                return answer.status, {"Content-Type": kind}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {}, error.read()


@dataclass
class Sent:
    """What the senders were told, by all of them."""

    told: set[str] = field(default_factory=set)  # SOP Instance UIDs
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def success(self, instance: str) -> None:
        """Told by 0000H, or by Referenced SOP Sequence."""
        with self.lock:
            self.told.add(instance)

    def failed(self, why: str) -> None:
        """Told a failure, or nothing."""
        with self.lock:
            self.failures[why] += 1


def send_c_store(port: int, objects: list[bytes], sent: Sent) -> None:
    """One association after another, until each object was told success."""
    waiting = [Stored.of(data) for data in objects]
    while waiting:
        try:
            with peer(port) as sender:
                sender.associate((1, CR, [EXPLICIT]))
                while waiting:
                    status = sender.store(waiting[-1]).Status
                    if status:
                        sent.failed(f"status {status:04X}")
                        time.sleep(0.2)
                        continue
                    sent.success(waiting.pop().instance)
                sender.release()
        except (OSError, EOFError, AssertionError) as error:
            sent.failed(type(error).__name__)
            time.sleep(0.2)


def send_stow(port: int, objects: list[bytes], sent: Sent) -> None:
    """One request for each object, again until it is among the referenced ones."""
    waiting = list(objects)
    while waiting:
        instance = Stored.of(waiting[-1]).instance
        try:
            said = stow(port, waiting[-1])
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            sent.failed(type(error).__name__)
            time.sleep(0.2)
            continue
        if instance in referenced(said):
            waiting.pop()
            sent.success(instance)
        else:
            sent.failed("not referenced")


def stow(port: int, data: bytes) -> dict[str, Any]:
    """The answer to a Store request of one object, as DICOM JSON."""
    kind = 'multipart/related; type="application/dicom"; boundary=part'
    body = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--part--\r\n"
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    url = f"http://127.0.0.1:{port}/dicom-web/studies"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return dict(json.load(answer))


def referenced(said: dict[str, Any]) -> set[str]:
    """The instances in Referenced SOP Sequence (0008,1199)."""
    items = said.get("00081199", {}).get("Value", [])
    return {item["00081155"]["Value"][0] for item in items}


@contextmanager
def receiver(folder: Path, http: int, dicom: int, destination: str) -> Iterator[Live]:
    """A service on these ports, with its outbox in the folder."""
    (folder / "destinations.toml").write_text(DESTINATIONS.format(url=destination))
    with serving(
        folder / "log.txt",
        "--dicom-port",
        str(dicom),
        command=("serve", "--port", str(http)),
        model="swift/1.1.0",
        destinations=str(folder / "destinations.toml"),
    ) as live:
        yield live


def subjects(archive: Orthanc) -> Counter[str]:
    """How many reports Orthanc holds of each image, by its SOP Instance UID."""
    with urllib.request.urlopen(f"{archive.root}/instances", timeout=60) as answer:
        names = json.load(answer)

    def subject(name: str) -> str:
        url = f"{archive.root}/instances/{name}/tags?simplify"
        with urllib.request.urlopen(url, timeout=60) as answer:
            tags = json.load(answer)
        series = tags["CurrentRequestedProcedureEvidenceSequence"][0]["ReferencedSeriesSequence"]
        return str(series[0]["ReferencedSOPSequence"][0]["ReferencedSOPInstanceUID"])

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(subject, names))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Send everything, kill, wait, and count."""
    chance, sent = random.Random(options.seed), Sent()
    files = [file_of(number) for number in range(2 * options.objects)]
    http, dicom = free_port(), free_port()
    began = time.monotonic()
    (folder / "orthanc").mkdir()
    (folder / "receiver").mkdir()
    with (
        orthanc(folder / "orthanc") as archive,
        ThreadPoolExecutor(2 * SENDERS) as pool,
    ):
        destination = Destination(archive.address, random.Random(options.seed))
        with http_peer(destination.answer) as behind:
            for number in range(SENDERS):
                own = files[number :: 2 * SENDERS]
                pool.submit(send_c_store, dicom, own, sent)
                pool.submit(send_stow, http, files[number + SENDERS :: 2 * SENDERS], sent)
            for kill in range(options.kills + 1):
                with receiver(folder / "receiver", http, dicom, behind.url) as live:
                    if kill == options.kills // 2:
                        destination.away_from = time.monotonic()
                    last = kill == options.kills
                    share = 1 if last else (kill + chance.uniform(0.3, 0.9)) / (options.kills + 1)
                    wait(sent, share * len(files), live)
                    if last:
                        sending_s = time.monotonic() - began
                        found = drained(archive, sent.told)
                # the end of the block is kill -9
        return {
            **moment(),
            "objects": {"c_store": options.objects, "stow": options.objects},
            "kills": options.kills,
            "told_success": len(sent.told),
            "told_failure_or_nothing": dict(sent.failures),
            "destination": dict(destination.did),
            "reports": found.total(),
            "lost": len(sent.told - found.keys()),
            "twice": sum(count > 1 for count in found.values()),
            "of_nothing_sent": len(found.keys() - sent.told),
            "sending_s": round(sending_s),
            "delivered_s": round(time.monotonic() - began),
        }


def wait(sent: Sent, count: float, live: Live) -> None:
    """Until so many objects were told success.

    Raises:
        RuntimeError: The service ended by itself.
    """
    while len(sent.told) < count:
        if live.process.poll() is not None:
            raise RuntimeError(f"the service ended: {live.log.read_text()[-2000:]}")
        time.sleep(0.05)


def drained(archive: Orthanc, told: set[str]) -> Counter[str]:
    """What Orthanc holds once it has a report of each, or when patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with urllib.request.urlopen(f"{archive.root}/statistics", timeout=60) as answer:
            count = json.load(answer)["CountInstances"]
        if count >= len(told) or time.monotonic() > end:
            time.sleep(2)  # for one too many
            return subjects(archive)
        time.sleep(1)


def main() -> None:
    """One run; the exit code says whether anything was lost or delivered twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=2000, help="by each protocol")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    sys.exit(bool(found["lost"] or found["twice"] or found["of_nothing_sent"]))


if __name__ == "__main__":
    main()
