"""Figures and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from model_store import Interval
from training.data.manifest import Row
from training.evaluate.metrics import OperatingPoint, as_table, by_source, evaluate, proportion

POINT = OperatingPoint(0.5, Interval(low=0.4, high=0.6))


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (1377, 1377, 0.99732, 1.0),  # the paper's 100 % (99.73 to 100 %)
        (377, 377, 0.99026, 1.0),
        (0, 10, 0.0, 0.30850),
        (5, 10, 0.18709, 0.81291),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_clopper_pearson(count: int, n: int, low: float, high: float) -> None:
    """Published values of the exact binomial interval."""
    assert proportion(count, n).ci95 == pytest.approx((low, high), abs=5e-5)


ROWS = [
    Row("1", "frontal", "p1", "a"),
    Row("2", "frontal", "p1", "a"),
    Row("3", "lateral", "p2", "a"),
    Row("4", "lateral", "p3", "b"),
]
PFI = np.array([0.9, 0.45, 0.1, 0.7], dtype=np.float32)


def test_a_row_counts_what_it_says() -> None:
    """Frontal is positive; both errors, the ranking and the band are counted."""
    row = evaluate("all", PFI, ROWS, POINT)
    assert (row.images, row.patients) == (4, 3)
    assert (row.accuracy.count, row.accuracy.n) == (2, 4)
    assert row.sensitivity is not None
    assert row.sensitivity.value == 0.5
    assert row.specificity is not None
    assert row.specificity.value == 0.5
    assert row.auroc == 0.75
    assert row.review.count == 1


def test_each_source_has_its_row() -> None:
    """After the pooled row; a source of one view has neither AUROC nor sensitivity."""
    pooled, first, second = by_source("test", PFI, ROWS, POINT)
    assert [row.name for row in (pooled, first, second)] == ["test", "test: a", "test: b"]
    assert second.auroc is None
    assert second.sensitivity is None
    assert first.accuracy.n + second.accuracy.n == pooled.accuracy.n


def test_the_table_is_markdown() -> None:
    """A header, a rule, and one line a row with n and the interval."""
    lines = as_table(by_source("test", PFI, ROWS, POINT)).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| test | 4 | 2 | 50.00% (6.76% to 93.24%) |")
