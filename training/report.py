"""Tests of finished runs, each made once: the held-out part, Figure 6, and other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from model_store import Evaluation, Plateau
from service.imaging import image_to_tensor
from training.baseline import HALF, baseline_pfi
from training.cutoff import Rule
from training.evaluate import OperatingPoint, by_source, evaluate, predict
from training.figure6 import FIGURE_6, transform
from training.fit import CUTOFF, fit, load_best, pick_device
from training.manifest import (
    LabelledImages,
    ManifestError,
    Row,
    image_reader,
    read_images,
    read_manifest,
)
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
        return OperatingPoint(self.plateau, self.rule, self.margin_logits)

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
    settings, point = FitSettings.load(run), _point(run, rule, margin_logits)
    rows = rows_of(settings, "test")
    images = read_images(rows, settings.images, settings.spec)
    network, device = load_best(run, pick_device()), pick_device()
    report = by_source("test", predict(network, images.tensors, device), rows, point)
    report += _baseline_rows("test", settings, images)
    grid = {
        name: predict(network, figure_6_images(rows, settings, name).tensors, device)
        for name in FIGURE_6
    }
    together = np.concatenate(list(grid.values()))
    report.append(
        evaluate("test, Figure 6 grid", together, rows * len(grid), point, GRID_NOTE),
    )
    for name, pfi in grid.items():
        report.append(evaluate(f"test, Figure 6: {name}", pfi, rows, point))
    result = TestReport(
        rule=rule, margin_logits=margin_logits, plateau=point.plateau, evaluations=tuple(report)
    )
    result.save(run)
    return result


test_run.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def figure_6_images(rows: Sequence[Row], settings: FitSettings, name: str) -> LabelledImages:
    """The images with one transformation of Figure 6 made on each file."""
    read = image_reader(settings.images)
    tensors = [image_to_tensor(transform(read(row.file), name), settings.spec) for row in rows]
    return LabelledImages(tuple(rows), np.stack(tensors))


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
            _test_elsewhere(own, folder, others, _point(folder, rule, margin_logits))
        report.extend(TestReport.load(folder).evaluations)
    return report


def _test_elsewhere(
    settings: FitSettings, run: Path, others: dict[str, list[Row]], point: OperatingPoint
) -> None:
    network, device = load_best(run, pick_device()), pick_device()
    report: list[Evaluation] = []
    for other, rows in others.items():
        name = f"fit on {settings.sources[0]}, test on {other}"
        images = read_images(rows, settings.images, settings.spec)
        report.append(evaluate(name, predict(network, images.tensors, device), rows, point))
        report += _baseline_rows(name, settings, images)
    TestReport(
        rule=point.rule,
        margin_logits=point.margin_logits,
        plateau=point.plateau,
        evaluations=tuple(report),
    ).save(run)


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


def _point(run: Path, rule: Rule, margin_logits: float) -> OperatingPoint:
    plateau = Plateau.model_validate_json((run / CUTOFF).read_bytes())
    return OperatingPoint(plateau, rule, margin_logits)
