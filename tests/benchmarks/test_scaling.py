"""How the service scales: the model, the samples it rests on, and its page."""

from __future__ import annotations

import json
import os
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import scaling

RAW = """main (a.py:1);receive (b.py:20) 3
main (a.py:2);send (c.py:7);receive (b.py:21) 4
main (a.py:2);send (c.py:7) 1
"""


def test_samples_are_added_up_by_the_innermost_function() -> None:
    """Whatever line it was in, and whatever called it."""
    assert scaling.innermost(RAW) == {"receive (b.py)": 7, "send (c.py)": 1}


@pytest.mark.parametrize(
    ("cores", "lock_ms", "least", "most", "limit"),
    [
        (1, 2.0, 100, 100, "cores"),
        (2, 2.0, 1000 / 7, 200, "cores"),
        (6, 3.0, 200, 1000 / 3, "Python's lock"),
        (16, 2.0, 1000 / 4.375, 400, "receiving"),
    ],
)
def test_one_thread_and_one_lock_bound_many_cores(
    cores: int, lock_ms: float, least: float, most: float, limit: str
) -> None:
    """One core does what it does; more of them end at the lock, or at the thread that receives."""
    row = {"cpu_ms": 10.0, "main_ms": 4.0, "receive_ms": 2.5, "lock_ms": lock_ms}
    row["stretch"] = 0.0
    found = scaling.predicted(row, cores)
    assert (found.least, found.most) == pytest.approx((least, most))
    assert found.limit == limit


def test_shared_memory_slows_all_cores() -> None:
    """By as much for each further core as for the second."""
    row = {"cpu_ms": 10.0, "main_ms": 1.0, "receive_ms": 0.5, "lock_ms": 0.1, "stretch": 0.5}
    assert scaling.predicted(row, 3).most == pytest.approx(150)


def test_this_process_can_be_sampled() -> None:
    """As a server is; it needs the right to trace."""
    if os.geteuid():
        pytest.skip("needs root, who may trace other processes")
    assert isinstance(scaling.sampled(os.getpid(), 1), dict)


def test_the_tables_of_the_page_follow_from_the_results() -> None:
    """`python benchmarks/scaling.py --syntaxes --write` would change nothing."""
    results = json.loads(scaling.RESULTS.read_text())
    throughput = json.loads(scaling.THROUGHPUT.read_text())
    page = scaling.PAGE.read_text()
    assert scaling.written(page, scaling.tables(throughput, results)) == page
    assert len(results["rows"]) >= 5
