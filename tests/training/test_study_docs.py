"""The study that the documentation shows is one that was run, and is shown as it was found."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import ROOT

from training.__main__ import main
from training.study.config import Study
from training.study.results import Candidate, Results

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.load(DOCS)


def quoted(candidate: Candidate, chosen: str) -> str:
    """A candidate's line in docs/study.md."""
    found, own = candidate.accuracy, candidate.accuracy_originals
    low, high = found.ci95
    name = f"**{candidate.name}**" if candidate.name == chosen else candidate.name
    return (
        f"| {name} | {found.count}/{found.n} = {found.value:.2%} ({low:.2%} to {high:.2%}) "
        f"| {own.count}/{own.n} | {candidate.loss:.4f} |"
    )


def test_the_study_is_of_real_radiographs(results: Results) -> None:
    """Nine candidates, all trained in full on the shipped configuration's data."""
    study = Study.model_validate(results.config)
    assert len(results.candidates) == 9
    assert study.title == results.title
    assert study.finetune.balance
    assert {candidate.accuracy.n for candidate in results.candidates} == {
        study.finetune.children * candidate.accuracy_originals.n for candidate in results.candidates
    }


def test_the_page_quotes_it(results: Results) -> None:
    """Each candidate with count, n and interval."""
    page = (DOCS / "study.md").read_text()
    for candidate in results.candidates:
        assert quoted(candidate, results.chosen) in page


def test_the_report_follows_from_the_results(results: Results, tmp_path: Path) -> None:
    """Written anew, it is the same to the letter."""
    shutil.copy(DOCS / "results.json", tmp_path)
    shutil.copytree(DOCS / "figures", tmp_path / "figures")
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text() == (DOCS / "report.md").read_text()
    assert (DOCS / "report.html").read_text().count("<h1") == 1


def test_only_radiographs_that_may_be_shown_are(results: Results) -> None:
    """The figures of radiographs name licences that allow it."""
    for name in ("fig4-examples", "fig6-transformed", "fig8-gallery"):
        words = ET.parse(DOCS / "figures" / f"{name}.svg").getroot().itertext()
        text = "".join("".join(words).split())  # words are wrapped
        assert "CCBY" in text
        assert "clinic" not in text
        assert "-ND" not in text
