"""Does the receiver's memory grow? Resident memory after 500 and after 5,000 instances.

    python benchmarks/dicom_memory.py [--by c-store|stow] [--objects 5000] [--model swift/1.1.0]

Radiographs of tests/data and generated ones, in 13 transfer syntaxes and three sizes, each a new
instance, over 8 connections. Their reports are delivered into a folder, and the outbox is SQLite.
Memory is the sum of all processes of the service, at rest: 3 s after the last answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import servers
from companion import Companion
from load import Outcome
from machine import moment
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import CODECS, dicom, radiograph
from pydicom import uid

DATA = Path(__file__).parent.parent / "tests" / "data"
HERE = Path(__file__).parent
# Explicit VR Little Endian outside the pixels: load_dicom.py writes UIDs into it
SYNTAXES = (uid.ExplicitVRLittleEndian, uid.RLELossless, *CODECS)
EIGHT_BITS = (uid.JPEGBaseline8Bit,)
CONNECTIONS = 8
STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)
REST_SECONDS = 3.0
DRAIN_SECONDS = 900.0
SOP = "1.2.826.0.1.3680043.8.498.7.100000000"  # its end is replaced by a number as long
DESTINATIONS = '[destinations.folder]\nkind = "folder"\npath = "reports"\n'


def files(folder: Path) -> list[Path]:
    """Of each syntax: a real radiograph, one of a medium size, and for some a detector's."""
    uids = {"StudyInstanceUID": f"{SOP}.1", "SeriesInstanceUID": f"{SOP}.2"}
    uids |= {"SOPInstanceUID": SOP, "MediaStorageSOPInstanceUID": SOP}
    sources = sorted(DATA.glob("*.jpg"))
    found = []
    for place, syntax in enumerate(SYNTAXES):
        bits = 8 if syntax in EIGHT_BITS else 12
        kind = np.uint8 if bits == 8 else np.uint16
        real = np.asarray(Image.open(sources[place % len(sources)]).convert("L"))
        pictures = [real, radiograph(900, 760, bits, seed=place).astype(kind)]
        if syntax in {uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless}:
            pictures.append(radiograph(2828, 2320, bits, seed=place).astype(kind))
        if syntax == uid.JPEGExtended12Bit:
            pictures[0] = real.astype(np.uint16) << 4
        for pixels in pictures:
            path = folder / f"{len(found):02d}.dcm"
            path.write_bytes(dicom(pixels, syntax, **uids))
            found.append(path)
    return found


class Senders:
    """So many objects, by one protocol; each is a new instance."""

    def __init__(self, server: servers.Server, dicom_port: int, paths: list[Path]) -> None:
        self.server, self.dicom_port, self.paths = server, dicom_port, paths
        self.statuses: Counter[int] = Counter()
        self._numbers = count(1)

    def c_store(self, objects: int) -> None:
        """By C-STORE, in associations that offer all transfer syntaxes."""
        with Companion([sys.executable, str(HERE / "load_dicom.py")]) as generator:
            reply = generator.ask(
                port=self.dicom_port,
                bodies=[str(path) for path in self.paths],
                connections=CONNECTIONS,
                seconds=0,
                first=next(self._numbers),
                objects=objects,
            )
        self.statuses += Outcome(reply).statuses

    def stow(self, objects: int) -> None:
        """By STOW-RS, one object a request."""
        waiting = iter([next(self._numbers) for _ in range(objects)])
        bodies = [path.read_bytes() for path in self.paths]
        threads = [
            threading.Thread(target=self._stow, args=(waiting, bodies)) for _ in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stow(self, waiting: Iterator[int], bodies: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        headers = {"Content-Type": "application/dicom", "Accept": "application/dicom+json"}
        for number in waiting:
            new = f"{SOP[:-8]}{number:08d}".encode()
            body = bodies[number % len(bodies)].replace(SOP.encode(), new)
            connection.request("POST", "/dicom-web/studies", body, headers)
            answer = connection.getresponse()
            answer.read()
            self.statuses[answer.status] += 1
        connection.close()


def run(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Send in steps, and look at the memory after each."""
    (folder / "reports").mkdir()
    (folder / "destinations.toml").write_text(DESTINATIONS)
    (folder / "files").mkdir()
    paths = files(folder / "files")
    settings = servers.AMPLE_LIMITS | {"destinations": folder / "destinations.toml"}
    words, environment, ready, target = servers.service(options.model, **settings)
    dicom_port = servers.free_port()
    words += ["--dicom-port", str(dicom_port)]
    after: dict[int, int] = {}
    processes: dict[int, list[float]] = {}
    with servers.running((words, environment, ready, target)) as server:
        senders = Senders(server, dicom_port, paths)
        send = senders.c_store if options.by == "c-store" else senders.stow
        sent = 0
        for share in STEPS:
            wanted = round(share * options.objects)
            send(wanted - sent)
            sent = wanted
            if senders.statuses != {200: sent}:
                raise RuntimeError(f"not all objects were accepted: {senders.statuses}")
            time.sleep(REST_SECONDS)
            server.refresh()
            after[sent] = round(server.rss_bytes() / 1e6)
            processes[sent] = [round(each.memory_info().rss / 1e6, 1) for each in server.tree]
            print(sent, after[sent], processes[sent], file=sys.stderr, flush=True)
        at_the_end = delivered(folder)
        began = time.monotonic()
        while delivered(folder) < sent and time.monotonic() - began < DRAIN_SECONDS:
            time.sleep(1)
    return {
        **moment(),
        "by": options.by,
        "model": options.model,
        "files": len(paths),
        "megabytes": [round(min(map(size, paths)), 2), round(max(map(size, paths)), 2)],
        "statuses": dict(senders.statuses),
        "reports_at_the_end": at_the_end,
        "reports": delivered(folder),
        "until_all_reports_s": round(time.monotonic() - began),
        "rss_mb": after,
        "rss_mb_by_process": processes,
        "last_over_first": round(after[sent] / after[min(after)], 3),
    }


def delivered(folder: Path) -> int:
    """The number of reports so far."""
    return len(list((folder / "reports").glob("*.dcm")))


def size(path: Path) -> float:
    """In megabytes."""
    return path.stat().st_size / 1e6


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--by", choices=("c-store", "stow"), default="c-store")
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--model", default="swift/1.1.0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
