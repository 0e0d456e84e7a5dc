"""How rejected associations are recorded: all are counted, in few lines."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from service.api import rejections
from service.api.audit import Audit
from service.api.rejections import MAX_PEERS, MAX_TITLES, Rejections, recorded

REASONS = ("called_ae", "calling_ae", "limit", "tls")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def audit(path: Path) -> Audit:
    return Audit(path, bytes(32))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_scan_cannot_fill_the_log(audit, path):
    """Of 50,000 rejections of as many addresses and titles, a window has some 200 lines."""
    found = Rejections(audit)
    for number in range(50_000):
        found.add(REASONS[number % 4], f"AE{number}", f"fd00::{number % 9973:x}")
    found.flush()
    assert len(lines(path)) <= 2 * (MAX_PEERS + len(REASONS))
    counts = Counter()
    for line in lines(path):
        counts[line["code"]] += line["count"]
    assert counts == dict.fromkeys(REASONS, 12_500)


def test_a_peer_with_many_titles_hides_no_other(audit, path):
    """Beyond some, its titles are not told apart."""
    found = Rejections(audit)
    for number in range(10_000):
        found.add("calling_ae", f"AE{number}", "192.0.2.1")
    found.add("calling_ae", "CT1", "192.0.2.2")
    said = lines(path)
    assert len(said) == MAX_TITLES + 2
    assert (said[-2]["client"], said[-2]["address"]) == (None, "192.0.2.1")
    assert (said[-1]["client"], said[-1]["address"]) == ("ae:CT1", "192.0.2.2")
    found.flush()
    assert lines(path)[-1]["count"] == 10_000 - MAX_TITLES - 1


def test_a_window_ends_by_itself(audit, path, monkeypatch):
    """Then its rest is recorded, and the next rejection has a line again."""
    monkeypatch.setattr(rejections, "WINDOW_SECONDS", 0.05)
    with recorded(audit) as record:
        for _ in range(3):
            record("tls", "", "192.0.2.1")
        ended = time.monotonic() + 10
        while len(lines(path)) < 2:
            assert time.monotonic() < ended
            time.sleep(0.01)
        monkeypatch.setattr(rejections, "WINDOW_SECONDS", 60)
        record("tls", "", "192.0.2.1")
        record("tls", "", "192.0.2.1")
    assert [line["count"] for line in lines(path)] == [1, 2, 1, 1]


def test_a_log_that_is_full_stops_nothing(caplog):
    """The error is logged, once for each line that is lost."""
    found = Rejections(Audit(Path("/dev/full"), bytes(32)))
    for _ in range(3):
        found.add("tls", "", "192.0.2.1")
    found.flush()
    assert [each.message for each in caplog.records] == [
        "the audit log cannot be written: No space left on device"
    ] * 2
