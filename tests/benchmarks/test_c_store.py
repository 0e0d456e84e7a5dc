"""The load generator of C-STORE, against a real receiver."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import ROOT
from receiving import file_of, receiving, subjects, wait_for

sys.path.insert(0, str(ROOT / "benchmarks"))
import c_store
from load import Outcome
from load_dicom import Load, run


def test_each_object_is_a_new_instance(tmp_path: Path) -> None:
    """All are accepted, and each has a report; also in a second run."""
    (tmp_path / "image").write_bytes(file_of(1))
    sent = 0
    with receiving(tmp_path) as live:
        for first in (1, 2):
            load = Load(live.dicom_port, [str(tmp_path / "image")], 2, 0.3, first)
            outcome = Outcome(run(load))
            assert outcome.statuses == {200: len(outcome.answers)}
            sent += len(outcome.good)
        wait_for(lambda: len(set(subjects(tmp_path))) == sent)


def test_a_row_has_the_median_of_pairs() -> None:
    """Not the ratio of medians, as the machine may be slower for one pair than for the next."""
    pairs = [
        (c_store.Measured(10, 30), c_store.Measured(8, 40)),
        (c_store.Measured(20, 31), c_store.Measured(12, 41)),
        (c_store.Measured(40, 32), c_store.Measured(20, 42)),
    ]
    assert c_store.row("png", pairs) == (
        *("png", "20.0", "12.0"),
        *("0.60 (0.50 to 0.80)", "31.0", "41.0"),
    )
