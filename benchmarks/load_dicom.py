"""The load generator of C-STORE: a process of its own, as load.py, whose answers it writes.

It reads one JSON line a run (the fields of `Load`) and writes one. Closed loop: each association
sends its next object when it has the answer to the last. Objects are new instances: the last
component of their SOP Instance UID is a number that no other has.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from dicom_peer import ASSOCIATE_AC, P_DATA, Stored, pdu, peer, store_command, value

FRAGMENT_BYTES = 2**18 - 6  # the largest that the receiver announces
ROOT = "1.2.826.0.1.3680043.8.498."
SUCCESS, LOST = 200, 0  # statuses as of HTTP, for load.py's Outcome


@dataclass(frozen=True)
class Load:
    """One run."""

    port: int
    bodies: list[str]  # files, sent in turn
    connections: int
    seconds: float
    first: int  # differs between runs
    objects: int = 0  # it goes on until so many were sent as well


@dataclass
class Run:
    """The state that the associations of one run share."""

    load: Load
    objects: list[Stored]
    began: float = 0.0
    cpu_began: float = 0.0
    numbers: Iterator[int] = field(default_factory=itertools.count)  # next() on it is atomic
    answers: list[tuple[float, float, int, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._all_open = threading.Barrier(self.load.connections, self._begin)

    def _begin(self) -> None:
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def send(self) -> None:
        """What one association does."""
        with peer(self.load.port) as sender:
            contexts = self.contexts()
            offered = [(number, *kind) for kind, number in contexts.items()]
            assert sender.associate(*offered)[0] == ASSOCIATE_AC
            self._all_open.wait()
            while not self._enough(number := next(self.numbers)):
                stored = self.objects[number % len(self.objects)]
                context = contexts[stored.sop_class, (stored.syntax,)]
                pieces = parts(stored, context, self.load.first, number)
                since = time.perf_counter()
                for piece in pieces:
                    sender.socket.sendall(piece)
                status = SUCCESS if sender.status().Status == 0 else LOST
                latency = time.perf_counter() - since
                self.answers.append((since - self.began, latency, status, False))
            sender.release()

    def contexts(self) -> dict[tuple[str, tuple[str]], int]:
        """The number of a presentation context for each SOP class and transfer syntax."""
        kinds = dict.fromkeys((each.sop_class, (each.syntax,)) for each in self.objects)
        return {kind: 2 * place + 1 for place, kind in enumerate(kinds)}

    def _enough(self, number: int) -> bool:
        passed = time.perf_counter() - self.began
        return passed >= self.load.seconds and number >= self.load.objects


def parts(stored: Stored, context: int, first: int, number: int) -> Iterator[bytes | memoryview]:
    """A message about a new instance; what is large is not copied."""
    new = f"{ROOT}{first}.{number + 1}".encode()
    new += b"\0" * (len(new) % 2)
    old = stored.instance.encode()
    at = stored.data_set.index(old)
    view = memoryview(stored.data_set)
    begin = stored.data_set[: at - 2] + struct.pack("<H", len(new)) + new
    rest = view[at + len(old) + len(old) % 2 :]
    asked = store_command(stored.sop_class, new.rstrip(b"\0").decode())
    yield pdu(P_DATA, value(context, 3, asked))
    yield from fragment(context, begin, is_last=False)
    for start in range(0, len(rest), FRAGMENT_BYTES):
        part = rest[start : start + FRAGMENT_BYTES]
        yield from fragment(context, part, is_last=start + FRAGMENT_BYTES >= len(rest))


def fragment(
    context: int, part: bytes | memoryview, *, is_last: bool
) -> Iterator[bytes | memoryview]:
    """A PDU of the data set."""
    yield struct.pack(">BxLLBB", P_DATA, len(part) + 6, len(part) + 2, context, 2 * is_last)
    yield part


def identified(path: str) -> bytes:
    """A file with the UIDs that HTTP does not ask for."""
    found = dcmread(path)
    found.StudyInstanceUID, found.SeriesInstanceUID = f"{ROOT}2", f"{ROOT}3"
    written = io.BytesIO()
    found.save_as(written)
    return written.getvalue()


def run(load: Load) -> dict[str, Any]:
    """As load.py's."""
    objects = [Stored.of(identified(path)) for path in load.bodies]
    state = Run(load, objects)
    threads = [threading.Thread(target=state.send) for _ in range(load.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - state.began
    return {
        "elapsed_s": elapsed,
        "cpu_s": time.process_time() - state.cpu_began,
        "answers": sorted(state.answers),
    }


def main() -> None:
    """Serve the benchmark, a line a run."""
    for line in sys.stdin:
        print(json.dumps(run(Load(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
