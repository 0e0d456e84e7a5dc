"""What the benchmarks calculate, and that the documentation shows what they found."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import bars
import tables
from load import Load, Outcome, percentile, run

RESULTS = ROOT / "benchmarks" / "results" / "throughput.json"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return tables.read(RESULTS)


def test_every_bar_was_measured(results: dict[str, Any]) -> None:
    """The committed results have a row with a value for each bar, and it follows from them."""
    assert results["bars"] == bars.rows(results)
    assert not [row["name"] for row in results["bars"] if row["value"] is None]


def test_what_is_committed_was_measured_in_full(results: dict[str, Any]) -> None:
    """A quick run is for a look, not for the documentation."""
    parts = [part for section in results["measured"].values() for part in section.values()]
    assert parts
    assert not any(part["quick"] for part in parts)


def test_the_page_follows_from_the_results(results: dict[str, Any]) -> None:
    """Written anew, it is the same to the letter."""
    assert tables.document(results) == (ROOT / "docs" / "throughput.md").read_text()


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1), (0.001, 1)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    """Nearest rank, whatever the order of the values."""
    assert percentile([*range(100, 0, -1)], share) == expected


def test_ratios_are_of_the_same_round() -> None:
    """When the machine slows down for both, their ratio stays."""
    assert bars.paired([10, 5, 1], [2, 1, 0.2]) == 5


@pytest.mark.parametrize(
    ("at_least", "value", "met"),
    [(True, 2.0, True), (True, 1.9, False), (False, 2.0, True), (False, 2.1, False)],
)
def test_a_bar_is_met_at_its_limit(at_least: bool, value: float, met: bool) -> None:
    """At least and at most include the limit."""
    assert bars.Bar("", at_least, 2.0, value).met is met


def test_what_was_not_measured_is_not_met() -> None:
    """Without results no bar is met, and all are there."""
    rows = bars.rows({})
    assert len(rows) == len({row["name"] for row in rows}) > 15
    assert not [row for row in rows if row["met"] or row["value"] is not None]


class Server(ThreadingHTTPServer):
    """Answers by turns, as told."""

    daemon_threads = True
    statuses: tuple[int, ...] = (200,)  # 0: the connection is cut instead
    seconds = 0.0
    hangs_up = False  # after an answer, without a word
    received: list[int]
    opened = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, *args: Any) -> None:
        self.opened += 1
        super().process_request(*args)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        server = self.server
        status = server.statuses[len(server.received) % len(server.statuses)]
        server.received.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(server.seconds)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = server.hangs_up

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.received = []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def bodies(tmp_path: Path) -> list[str]:
    files = [tmp_path / "small", tmp_path / "large"]
    for file, size in zip(files, (10, 300_000), strict=True):
        file.write_bytes(bytes(size))
    return [str(file) for file in files]


def test_a_closed_loop_sends_its_images_in_turn(server: Server, bodies: list[str]) -> None:
    """It goes on until as many as asked for were answered, and counts them over its time."""
    outcome = Outcome(run(Load([server.port], bodies, connections=2, seconds=0, images=8)))
    assert outcome.statuses == {200: 8}
    assert sorted(server.received) == [10] * 4 + [300_000] * 4
    assert outcome.images_s == 8 / outcome.elapsed_s
    assert all(0 < seconds <= outcome.elapsed_s for seconds in outcome.latencies_s)


def test_refusals_and_lost_connections_are_told_apart(server: Server, bodies: list[str]) -> None:
    """Only answered images count as such; whether a refusal says when to come back is kept."""
    server.statuses = (200, 503, 0, 415)
    outcome = Outcome(run(Load([server.port], bodies, connections=1, seconds=0, images=8)))
    assert outcome.statuses == {200: 2, 503: 2, 0: 2, 415: 2}
    assert outcome.errors == 4
    assert {answer.status for answer in outcome.answers if answer.retry_after} == {503}


def test_an_open_loop_keeps_its_rate(server: Server, bodies: list[str]) -> None:
    """Images leave when they are due, however many are under way."""
    server.seconds = 0.05
    load = Load([server.port], bodies, connections=16, seconds=0.3, rate=50)
    outcome = Outcome(run(load))
    assert [answer.sent_s for answer in outcome.answers] == pytest.approx(
        [number / 50 for number in range(15)]
    )


def test_connections_are_open_before_the_clock_starts(server: Server, bodies: list[str]) -> None:
    """All of them, also those that will send nothing; who accepts slowly is not charged for it."""
    run(Load([server.port], bodies, connections=5, seconds=0, images=2))
    assert (server.opened, len(server.received)) == (5, 2)


def test_a_stall_is_on_the_bill_of_all_who_wait(server: Server, bodies: list[str]) -> None:
    """Latency counts from when an image was due, not from when a connection was free."""
    server.seconds = 0.04
    outcome = Outcome(run(Load([server.port], bodies, connections=1, seconds=0.08, rate=100)))
    ordered = [answer.latency_s for answer in outcome.answers]
    assert len(ordered) == 8
    assert ordered[-1] >= 8 * 0.04 - 0.07


def test_a_connection_closed_while_idle_is_opened_anew(server: Server, bodies: list[str]) -> None:
    """As servers close those that wait too long; no image is lost to it."""
    server.hangs_up = True
    outcome = Outcome(run(Load([server.port], bodies, connections=1, seconds=0.2, rate=20)))
    assert outcome.statuses == {200: 4}


def test_connections_are_spread_over_the_ports(bodies: list[str], server: Server) -> None:
    """A second server gets every second connection."""
    with Server(("127.0.0.1", 0), Handler) as other:
        other.received = []
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.seconds = other.seconds = 0.05
        ports = [server.port, other.port]
        run(Load(ports, bodies, connections=2, seconds=0, images=4))
        other.shutdown()
        thread.join()
    assert len(server.received) == len(other.received) == 2
