"""Send radiographs to a running service in three ways: one by one, as backfill, in archives.

    python deploy/load_client.py URL FILE... [--seconds 60] [--pause 0]

Standard library only. Each way has one sender. It sends the files in turn, each after the answer to
the last and a pause.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

TIMEOUT_SECONDS = 60


def archive(files: Mapping[str, bytes]) -> bytes:
    """One tar of all files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def send(address: str, body: bytes) -> int:
    """Post one body, read the whole answer; the status, or 0 without an answer."""
    try:
        request = urllib.request.Request(address, body)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def offered(
    url: str, files: Mapping[str, bytes], pause_seconds: float = 0
) -> Iterator[Counter[tuple[str, int]]]:
    """Send during the block; counts the statuses of each way."""
    counts: Counter[tuple[str, int]] = Counter()
    stop = threading.Event()
    one_by_one = list(files.values())
    ways = {
        "/v1/classify": one_by_one,
        "/v1/classify?lane=backfill": one_by_one,
        "/v1/classify/batch": [archive(files)],
    }

    def keep_sending(way: str) -> None:
        for body in cycle(ways[way]):
            if stop.wait(pause_seconds):
                return
            counts[way, send(url + way, body)] += 1

    senders = [threading.Thread(target=keep_sending, args=[way]) for way in ways]
    for sender in senders:
        sender.start()
    try:
        yield counts
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def main() -> int:
    """Send for `--seconds`, print the statuses; returns 1 after any failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=0, help="seconds after each answer")
    options = parser.parse_args()
    files = {file.name: file.read_bytes() for file in options.files}
    with offered(options.url, files, options.pause) as counts:
        time.sleep(options.seconds)
    for (way, status), count in sorted(counts.items()):
        print(f"{count:8} {status} {way}")
    return int(any(status in {0, 500} for _, status in counts))


if __name__ == "__main__":
    sys.exit(main())
