"""Tests of finished runs, each made once: the held-out part, Figure 6, and other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from model_store import Evaluation, Plateau
from training.baseline import HALF, baseline_pfi
from training.cutoff import Rule, choose_threshold, review_band
from training.evaluate import OperatingPoint, by_source, evaluate, predict
from training.figure6 import FIGURE_6, transformed
from training.fit import CUTOFF, fit, load_best
from training.manifest import (
    LabelledImages,
    ManifestError,
    Row,
    read_images,
    read_manifest,
)
from training.processes import pick_device
from training.settings import FitSettings, rows_of

TEST = "test.json"
GRID_NOTE = "all transformations of each image; the interval takes them for independent"


class TestReport(BaseModel):
    """What a test found, with the operating point that had been fixed before it."""

    __test__ = False  # a name that pytest would collect
    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule
    margin_logits: float
    plateau: Plateau
    evaluations: tuple[Evaluation, ...]

    @property
    def point(self) -> OperatingPoint:
        """The cutoff and the review band."""
        threshold = choose_threshold(self.plateau, self.rule)
        return OperatingPoint(threshold, review_band(self.plateau, threshold, self.margin_logits))

    def with_rows(self, evaluations: Sequence[Evaluation]) -> TestReport:
        """The same operating point, and what it was worth."""
        return self.model_copy(update={"evaluations": tuple(evaluations)})

    def save(self, run: Path) -> None:
        """Write test.json."""
        (run / TEST).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> TestReport:
        """Read test.json."""
        return cls.model_validate_json((run / TEST).read_bytes())


def test_run(run: Path, rule: Rule, margin_logits: float) -> TestReport:
    """Test the run's held-out patients: as they are, and transformed as in Figure 6.

    Raises:
        ValueError: The run was tested before; a second look would be a choice by the test set.
    """
    _refuse_second_test(run)
    settings, untested = FitSettings.load(run), _untested(run, rule, margin_logits)
    point = untested.point
    rows = rows_of(settings, "test")
    images = read_images(rows, settings.images, settings.spec)
    network, device = load_best(run, pick_device()), pick_device()
    report = by_source("test", predict(network, images.tensors, device), rows, point)
    report += _baseline_rows("test", settings, images)
    grid = {
        name: predict(network, transformed(rows, settings.images, settings.spec, name), device)
        for name in FIGURE_6
    }
    together = np.concatenate(list(grid.values()))
    report.append(
        evaluate("test, Figure 6 grid", together, rows * len(grid), point, GRID_NOTE),
    )
    for name, pfi in grid.items():
        report.append(evaluate(f"test, Figure 6: {name}", pfi, rows, point))
    result = untested.with_rows(report)
    result.save(run)
    return result


test_run.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def mixed_sources(rows: Sequence[Row]) -> list[str]:
    """The sources that hold both views: one of them can be fitted on, the others tested on."""
    sources = sorted({row.source for row in rows})
    return [s for s in sources if len({row.view for row in rows if row.source == s}) == 2]


def cross_source(
    settings: FitSettings, run: Path, rule: Rule, margin_logits: float
) -> list[Evaluation]:
    """Fit on each mixed source in a folder of its own below `run`; test on all of each other.

    A source that was fitted on and tested already is read, so the command can be resumed.

    Raises:
        ManifestError: Fewer than two sources hold both views.
    """
    rows = read_manifest(settings.manifest)
    mixed = mixed_sources(rows)
    if len(mixed) < 2:
        raise ManifestError("cross-source tests need two sources that hold both views")
    report: list[Evaluation] = []
    for source in mixed:
        own = replace(settings, sources=(source,), test_share=0.0)
        folder = run / f"fit-on-{source}"
        if not (folder / TEST).exists():
            fit(own, folder)
            others = {name: [r for r in rows if r.source == name] for name in mixed}
            del others[source]
            _test_elsewhere(own, folder, others, _untested(folder, rule, margin_logits))
        report.extend(TestReport.load(folder).evaluations)
    return report


def _test_elsewhere(
    settings: FitSettings, run: Path, others: dict[str, list[Row]], untested: TestReport
) -> None:
    network, device = load_best(run, pick_device()), pick_device()
    report: list[Evaluation] = []
    for other, rows in others.items():
        name = f"fit on {settings.sources[0]}, test on {other}"
        images = read_images(rows, settings.images, settings.spec)
        report.append(
            evaluate(name, predict(network, images.tensors, device), rows, untested.point)
        )
        report += _baseline_rows(name, settings, images)
    untested.with_rows(report).save(run)


def _baseline_rows(name: str, settings: FitSettings, images: LabelledImages) -> list[Evaluation]:
    """What the frozen pre-trained features make of the same images; none from scratch."""
    if settings.weights is None:
        return []
    train = read_images(rows_of(settings, "train"), settings.images, settings.spec)
    pfi = baseline_pfi(train, images, settings.weights, pick_device())
    return [evaluate(f"{name}, frozen features + logistic regression", pfi, images.rows, HALF)]


def _refuse_second_test(run: Path) -> None:
    if (run / TEST).exists():
        raise ValueError(f"{run} was tested already; its results are in {run / TEST}")


def _untested(run: Path, rule: Rule, margin_logits: float) -> TestReport:
    """The operating point alone, fixed before the test."""
    plateau = Plateau.model_validate_json((run / CUTOFF).read_bytes())
    return TestReport(rule=rule, margin_logits=margin_logits, plateau=plateau, evaluations=())
