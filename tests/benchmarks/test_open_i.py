"""The audit of Open-I's headers: the page follows from the results, and they from the images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

from model_store import Store

sys.path.insert(0, str(ROOT / "benchmarks"))
import open_i


def test_the_page_follows_from_the_results() -> None:
    """`python benchmarks/open_i.py` would change nothing."""
    assert open_i.page(open_i.read()) == open_i.PAGE.read_text()


def test_the_results_follow_from_the_images(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first images again, by the small network."""
    model = "swift/1.1.0"
    assert model in open_i.MODELS
    monkeypatch.setattr(open_i, "MODELS", (model,))
    monkeypatch.setattr(open_i, "VIEWS", ("frontal",))
    found = open_i.measure(shared / "data" / "more")
    stored = [row for row in open_i.read() if row["view"] == "frontal"]
    tolerance = Store().load(model).card.probe_tolerance
    assert [row["image"] for row in found] == [row["image"] for row in stored]
    for row, known in zip(found, stored, strict=True):
        assert float(row[model]) == pytest.approx(float(known[model]), abs=tolerance)
