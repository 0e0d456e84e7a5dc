"""The load generator: a process of its own that sends files over HTTP and times the answers.

It reads one JSON line a run (the fields of `Load`) and writes one (`elapsed_s`, `cpu_s` and
`answers`). Closed loop: each connection sends its next image when it has the answer to the last.
Open loop: images leave at a given rate whatever becomes of them, and latency counts from when each
was due, so that a server that stalls is not spared. Raw sockets, and connections and requests made
beforehand, keep its own share of the processors small.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

REFUSED_SECONDS = 0.05  # how long a closed loop waits after 503 or a lost connection
TIMEOUT_SECONDS = 120
HEAD = (
    "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
    "Content-Length: {length}\r\n\r\n"
)


class Answer(NamedTuple):
    """What became of one image."""

    sent_s: float  # since the start; in an open loop, when it was due
    latency_s: float
    status: int  # 0: the connection was lost
    retry_after: bool  # whether the answer carries Retry-After


@dataclass(frozen=True)
class Load:
    """One run."""

    ports: list[int]
    bodies: list[str]  # files, sent in turn
    connections: int  # spread over the ports
    seconds: float
    target: str = "/v1/classify"
    images: int = 0  # a closed loop goes on until so many were sent as well
    rate: float | None = None  # images/s of an open loop; None: closed
    # Wait for the end of a thread's slice, some milliseconds, instead of taking its core from it
    patient: bool = False


class Request(NamedTuple):
    """One image, ready to be sent."""

    head: bytes
    body: BinaryIO  # sent without a copy, for which the server's decoders would lose their caches


class Connection:
    """Keep-alive, opened anew when lost."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """Connect; who refuses is met again by `exchange`."""
        with suppress(OSError):
            self._connected()

    def exchange(self, request: Request) -> tuple[int, bool]:
        """The status and whether it came with Retry-After; status 0 when no answer came."""
        try:
            return self._exchange(self._connected(), request)
        except OSError:
            self.close()
            return 0, False

    def close(self) -> None:
        """Let go."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _connected(self) -> socket.socket:
        # Readable while nothing is due: the server has closed it, as it does with idle ones
        if self.socket is not None and select.select([self.socket], [], [], 0)[0]:
            self.close()
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.socket

    def _exchange(self, connected: socket.socket, request: Request) -> tuple[int, bool]:
        # Refused before the end of the body: the answer may have come nevertheless
        with suppress(BrokenPipeError, ConnectionResetError):
            connected.sendall(request.head, socket.MSG_MORE)
            connected.sendfile(request.body)
        head, body = _received_head(connected)
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        missing = int(headers["content-length"]) - len(body)
        while missing > 0:
            missing -= len(_received(connected))
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), "retry-after" in headers


def _received(connected: socket.socket) -> bytes:
    part = connected.recv(65536)
    if not part:
        raise ConnectionResetError("closed within an answer")
    return part


def _received_head(connected: socket.socket) -> tuple[bytes, bytes]:
    found = b""
    while b"\r\n\r\n" not in found:
        found += _received(connected)
    head, _, body = found.partition(b"\r\n\r\n")
    return head, body


@dataclass
class Run:
    """The state that the connections of one run share."""

    load: Load
    requests: list[Request]
    began: float = 0.0
    cpu_began: float = 0.0
    numbers: count[int] = field(default_factory=count)  # next() on it is atomic
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._all_open = threading.Barrier(self.load.connections, self._begin)

    def _begin(self) -> None:
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def connect(self, place: int) -> None:
        """What one connection does, to the end of the run."""
        connection = Connection(self.load.ports[place % len(self.load.ports)])
        connection.open()
        self._all_open.wait()
        send = self._closed if self.load.rate is None else self._open
        send(connection)
        connection.close()

    def _closed(self, connection: Connection) -> None:
        while not self._enough(number := next(self.numbers)):
            answer = self._send(connection, number, time.perf_counter())
            if answer.status in {0, 503}:
                time.sleep(REFUSED_SECONDS)

    def _enough(self, number: int) -> bool:
        passed = time.perf_counter() - self.began
        return passed >= self.load.seconds and number >= self.load.images

    def _open(self, connection: Connection) -> None:
        assert self.load.rate is not None
        while (due := (number := next(self.numbers)) / self.load.rate) < self.load.seconds:
            time.sleep(max(0.0, self.began + due - time.perf_counter()))
            self._send(connection, number, self.began + due)

    def _send(self, connection: Connection, number: int, since: float) -> Answer:
        status, retry_after = connection.exchange(self.requests[number % len(self.requests)])
        latency = time.perf_counter() - since
        answer = Answer(since - self.began, latency, status, retry_after)
        self.answers.append(answer)
        return answer


def run(load: Load) -> dict[str, Any]:
    """The wall seconds to the last answer, the generator's own CPU seconds, and the answers."""
    with ExitStack() as stack:
        requests = []
        for path in map(Path, load.bodies):
            head = HEAD.format(target=load.target, length=path.stat().st_size)
            requests.append(Request(head.encode(), stack.enter_context(path.open("rb"))))
        return _run(load, requests)


def _run(load: Load, requests: list[Request]) -> dict[str, Any]:
    policy = os.SCHED_BATCH if load.patient else os.SCHED_OTHER
    os.sched_setscheduler(0, policy, os.sched_param(0))  # threads have it of who begins them
    state = Run(load, requests)
    threads = [
        threading.Thread(target=state.connect, args=(place,)) for place in range(load.connections)
    ]
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


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Outcome:
    """What a run's answers amount to.

    Images/s counts from the first image sent to the last answer. This includes the last,
    half-empty batches of the server.
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        self.elapsed_s: float = reply["elapsed_s"]
        self.cpu_s: float = reply["cpu_s"]
        self.answers = [Answer(*answer) for answer in reply["answers"]]
        self.statuses = Counter(answer.status for answer in self.answers)
        self.good = [answer for answer in self.answers if answer.status == 200]
        self.latencies_s = [answer.latency_s for answer in self.good]

    @property
    def images_s(self) -> float:
        """Images answered a second."""
        return len(self.good) / self.elapsed_s

    @property
    def share_of_cpu(self) -> float:
        """Processors that the generator itself kept busy."""
        return self.cpu_s / self.elapsed_s

    @property
    def errors(self) -> int:
        """Images that got neither an answer nor a refusal for load."""
        return len(self.answers) - self.statuses[200] - self.statuses[503]


def main() -> None:
    """Serve the benchmarks, a line a run."""
    for line in sys.stdin:
        print(json.dumps(run(Load(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
