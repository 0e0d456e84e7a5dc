"""Tests of finished runs, each made once: the held-out part, Figure 6, and other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from model_store import Evaluation, HeadEvaluation, Heads, Plateau
from training.data.manifest import (
    LabelledImages,
    ManifestError,
    labels_of,
    read_images,
    read_manifest,
    views_of,
)
from training.evaluate.baseline import HALF, baseline_pfi
from training.evaluate.calibration import expected_calibration_error
from training.evaluate.cutoff import Rule, choose_threshold, review_band
from training.evaluate.heads import HeadImages, PredictHeads, head_rows
from training.evaluate.metrics import OperatingPoint, Predict, by_source, evaluate
from training.train.evaluation_rows import (
    corruption_rows,
    crossing_rows,
    mixed_sources,
    test_rows,
)
from training.train.finished import open_run
from training.train.fit import CUTOFF, HEADS_CUTOFFS, fit
from training.train.processes import pick_device
from training.train.settings import FitSettings, rows_of

TEST = "test.json"


class TestReport(BaseModel):
    """What a test found, with the operating point that had been fixed before it."""

    __test__ = False  # a name that pytest would collect
    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule
    margin_logits: float
    plateau: Plateau
    evaluations: tuple[Evaluation, ...]
    heads: Heads = Heads()
    head_evaluations: tuple[HeadEvaluation, ...] = ()

    @property
    def point(self) -> OperatingPoint:
        """The cutoff and the review band."""
        threshold = choose_threshold(self.plateau, self.rule)
        return OperatingPoint(threshold, review_band(self.plateau, threshold, self.margin_logits))

    def with_rows(
        self, evaluations: Sequence[Evaluation], of_heads: Sequence[HeadEvaluation] = ()
    ) -> TestReport:
        """The same operating point, and what it was worth."""
        rows = {"evaluations": tuple(evaluations), "head_evaluations": tuple(of_heads)}
        return self.model_copy(update=rows)

    def save(self, run: Path) -> None:
        """Write test.json."""
        (run / TEST).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> TestReport:
        """Read test.json."""
        return cls.model_validate_json((run / TEST).read_bytes())


def test_run(run: Path, rule: Rule, margin_logits: float) -> TestReport:
    """Test the run's held-out patients: as they are, and transformed as in Figure 6.

    A run that was fitted on one source is tested on the others instead, and one that left sources
    out on these. With several heads, the corruptions and the other heads are tested as well.

    Raises:
        ValueError: The run was tested before; a second look would be a choice by the test set.
    """
    _refuse_second_test(run)
    untested, finished = _untested(run, rule, margin_logits), open_run(run, pick_device())
    settings, point = finished.settings, untested.point
    if settings.heads:
        result = heads_report(finished.predict_heads, settings, untested)
        result.save(run)
        return result
    if settings.sources:
        report = crossing_rows(finished.predict, settings, point)
    else:
        report = test_rows(finished.predict, settings, point)
        if not finished.is_student:
            images = read_images(rows_of(settings, "test"), settings.images, settings.spec)
            report += _baseline_rows("test", settings, images)
    result = untested.with_rows(report)
    result.save(run)
    return result


test_run.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def heads_report(
    predict_heads: PredictHeads, settings: FitSettings, untested: TestReport
) -> TestReport:
    """What a network of several heads is worth on the test images of its run.

    Args:
        predict_heads: Of the network, in whatever form.
        settings: Of the run.
        untested: The cutoffs, fixed before.
    """
    predict: Predict = lambda tensors: predict_heads(tensors)["pfi"]  # noqa: E731
    rows = rows_of(settings, "test")
    views = views_of(rows)
    name = f"left out: {', '.join(settings.left_out)}" if settings.left_out else "test"
    report = list[Evaluation]()
    shown = HeadImages.read(rows, settings.images, settings.spec)
    if views:
        pfi = predict(shown.tensors[[row.view != "not_chest" for row in rows]])
        if settings.left_out:
            report = by_source(name, pfi, views, untested.point)
        else:
            report = test_rows(predict, settings, untested.point)
            report += corruption_rows(predict, settings, views, untested.point)
        # The first row is of all images as they are
        error = expected_calibration_error(pfi, labels_of(views))
        report[0] = report[0].model_copy(update={"calibration_error": error})
    of_heads = head_rows(name, predict_heads, shown, untested.heads)
    return untested.with_rows(report, of_heads)


def cross_source(
    settings: FitSettings, run: Path, rule: Rule, margin_logits: float
) -> list[Evaluation]:
    """Fit on each mixed source in a folder of its own below `run`; test on all of each other.

    A source that was fitted on and tested already is read, so the command can be resumed.

    Raises:
        ManifestError: Fewer than two sources hold both views.
    """
    mixed = mixed_sources(read_manifest(settings.manifest))
    if len(mixed) < 2:
        raise ManifestError("cross-source tests need two sources that hold both views")
    report: list[Evaluation] = []
    for source in mixed:
        own = replace(settings, sources=(source,), test_share=0.0)
        folder = run / f"fit-on-{source}"
        if not (folder / TEST).exists():
            fit(own, folder)
            _test_elsewhere(own, folder, _untested(folder, rule, margin_logits))
        report.extend(TestReport.load(folder).evaluations)
    return report


def _test_elsewhere(settings: FitSettings, run: Path, untested: TestReport) -> None:
    finished, report = open_run(run, pick_device()), list[Evaluation]()
    for row in crossing_rows(finished.predict, settings, untested.point):
        other = row.name.removeprefix(f"fit on {settings.sources[0]}, test on ")
        rows = [each for each in read_manifest(settings.manifest) if each.source == other]
        images = read_images(rows, settings.images, settings.spec)
        report += [row, *_baseline_rows(row.name, settings, images)]
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
    heads = Heads()
    if (run / HEADS_CUTOFFS).exists():
        heads = Heads.model_validate_json((run / HEADS_CUTOFFS).read_bytes())
    return TestReport(
        rule=rule, margin_logits=margin_logits, plateau=plateau, evaluations=(), heads=heads
    )
