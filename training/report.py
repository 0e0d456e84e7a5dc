"""Tests of finished runs, each made once: the held-out part, Figure 6, and other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    if settings.weights is not None:
        train = read_images(rows_of(settings, "train"), settings.images, settings.spec)
        pfi = baseline_pfi(train, images, settings.weights, device)
        report.append(evaluate("test, frozen features + logistic regression", pfi, rows, HALF))
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


@dataclass(frozen=True)
class Crossing:
    """Fit on one source, test on another that no step of the fit has seen."""

    fitted_on: str
    tested_on: str

    @property
    def name(self) -> str:
        """As it stands in the report."""
        return f"fit on {self.fitted_on}, test on {self.tested_on}"


def crossings(rows: Sequence[Row]) -> list[Crossing]:
    """All ordered pairs of the sources that hold both views."""
    sources = sorted({row.source for row in rows})
    mixed = [s for s in sources if len({row.view for row in rows if row.source == s}) == 2]
    return [Crossing(one, other) for one in mixed for other in mixed if one != other]


def cross_source(
    settings: FitSettings, run: Path, rule: Rule, margin_logits: float
) -> list[Evaluation]:
    """Every crossing: fit in a folder of its own below `run`, test, and test the baseline.

    A crossing that was tested already is read, not made again, so the command can be resumed.

    Raises:
        ManifestError: Fewer than two sources hold both views.
    """
    rows = read_manifest(settings.manifest)
    pairs = crossings(rows)
    if not pairs:
        raise ManifestError("cross-source tests need two sources that hold both views")
    report: list[Evaluation] = []
    for pair in pairs:
        own = replace(settings, sources=(pair.fitted_on,), test_share=0.0)
        folder = run / f"fit-on-{pair.fitted_on}"
        if not (folder / TEST).exists():
            fit(own, folder)
            other = [row for row in rows if row.source == pair.tested_on]
            _test_crossing(pair, own, folder, other, _point(folder, rule, margin_logits))
        report.extend(TestReport.load(folder).evaluations)
    return report


def _test_crossing(
    pair: Crossing, settings: FitSettings, run: Path, rows: Sequence[Row], point: OperatingPoint
) -> None:
    device = pick_device()
    images = read_images(rows, settings.images, settings.spec)
    pfi = predict(load_best(run, device), images.tensors, device)
    report = [evaluate(pair.name, pfi, rows, point)]
    if settings.weights is not None:
        train = read_images(rows_of(settings, "train"), settings.images, settings.spec)
        pfi = baseline_pfi(train, images, settings.weights, device)
        name = f"{pair.name}, frozen features + logistic regression"
        report.append(evaluate(name, pfi, rows, HALF))
    TestReport(
        rule=point.rule,
        margin_logits=point.margin_logits,
        plateau=point.plateau,
        evaluations=tuple(report),
    ).save(run)


def _refuse_second_test(run: Path) -> None:
    if (run / TEST).exists():
        raise ValueError(f"{run} was tested already; its results are in {run / TEST}")


def _point(run: Path, rule: Rule, margin_logits: float) -> OperatingPoint:
    plateau = Plateau.model_validate_json((run / CUTOFF).read_bytes())
    return OperatingPoint(plateau, rule, margin_logits)
