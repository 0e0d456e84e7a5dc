"""The comparison of pictures with stored images: what it calculates, and what its page says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from model_store import Store

sys.path.insert(0, str(ROOT / "benchmarks"))
import agreement
import kinds

RESULTS = ROOT / "benchmarks" / "results" / "rendered.json"
PAGE = ROOT / "docs" / "backfill-rendered.md"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def test_the_tables_of_the_page_follow_from_the_results(results: dict[str, Any]) -> None:
    """To the letter."""
    assert agreement.tables(results) in PAGE.read_text()


def test_every_kind_was_measured(results: dict[str, Any]) -> None:
    """With both models; the usual ones with 500 images and more."""
    images = {
        row["kind"]: [found["n"] for found in row["models"].values()] for row in results["rows"]
    }
    assert set(images) == set(kinds.KINDS)
    assert all(len(counts) == 2 and min(counts) >= 100 for counts in images.values())
    assert all(min(images[kind]) >= 500 for kind in ("12 bit", "window applied", "8 bit"))


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [(0, 504, (0.0, 0.007564)), (5, 100, (0.02154, 0.1118)), (10, 10, (0.7225, 1.0))],
)
def test_an_interval_is_wilsons(count: int, n: int, expected: tuple[float, float]) -> None:
    """As in Wilson 1927, and in every textbook since."""
    assert agreement.wilson(count, n) == pytest.approx(expected, rel=1e-3)
    assert agreement.wilson(0, 0) is None


def test_two_answers_are_compared_by_the_models_cutoff() -> None:
    """A view that differs counts once, and apart where the picture's answer is not for review."""
    version = Store().load("swift/1.0.0")
    low, high = version.card.review_band.low, version.card.review_band.high
    found = agreement.Agreement()
    found.add(version, 0.99, 0.98, "frontal")
    found.add(version, 0.99, (low + version.card.threshold) / 2, "frontal")
    found.add(version, 0.01, 0.99, "lateral")
    found.add(version, high, 0.99, None)
    row = found.row()
    assert (row["n"], row["views_differ"], row["views_differ_without_review"]) == (4, 2, 1)
    assert row["right"] == {"stored": [3, 3], "rendered": [1, 3]}
    assert row["review"] == {"stored": 1, "rendered": 1}
    assert row["pfi_moved"]["max"] == pytest.approx(0.98)


def test_what_is_measured_anew_replaces_only_that(tmp_path: Path) -> None:
    """Rows of other kinds, sizes and formats stay."""
    path = tmp_path / "rendered.json"
    old = [{"kind": kind, "side": 512, "format": "png", "n": 1} for kind in ("a", "b")]
    path.write_text(json.dumps({"rows": old}))
    new = [{"kind": "b", "side": 512, "format": "png", "n": 2}]
    assert agreement.merged(path, {"rows": new}) == {"rows": [old[0], new[0]]}


def test_each_kind_is_an_object_of_its_own() -> None:
    """Half of them laterals; one study, several instances."""
    pictures = kinds.radiographs(ROOT / "tests" / "data", 4)
    assert sorted(picture.view for picture in pictures) == ["frontal"] * 2 + ["lateral"] * 2
    made = kinds.objects(pictures[0], 1, 1, ["12 bit", "8 bit", "Pixel Padding 65535"])
    assert len({bytes(each) for each in made}) == 3
    assert all(each[128:132] == b"DICM" for each in made)
