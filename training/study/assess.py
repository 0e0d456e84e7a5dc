"""The chosen candidate: calibrated and given its cutoffs on validation, then tested."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from model_store import Evaluation, Interval, Plateau, View
from training.augmentation.figure6 import FIGURE_6
from training.augmentation.image_files import transformed
from training.data.manifest import Row, labels_of
from training.evaluate.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability,
    review_band_for,
    scaled,
    with_plateau,
)
from training.evaluate.cutoff import Rule, choose_threshold, youden_plateau
from training.evaluate.metrics import (
    SERVING_BATCH,
    OperatingPoint,
    Pfi,
    Predict,
    by_source,
    evaluate,
    in_batches,
    proportion,
)
from training.evaluate.records import ReviewBand
from training.evaluate.torch_predictors import predict
from training.export.publish import export
from training.networks.googlenet import PfiNetwork
from training.study.candidates import Trained, validation_pairs
from training.study.config import Study
from training.study.data import Radiographs
from training.study.results import Assessed, Calibration, TestImage
from training.train.evaluation_rows import GRID_NOTE
from training.train.fit import load_best
from training.train.processes import pick_device

RULES: tuple[Rule, ...] = ("middle", "high")
SOFT = 8.0  # a temperature at which no logit is too large for a float32 softmax


@dataclass(frozen=True)
class Reading:
    """How a trained network's PFIs are read: all of it found on validation images."""

    temperature: float
    plateau: Plateau
    review: ReviewBand | None  # None: not asked for, and the plateau stands for it

    def point(self, rule: Rule) -> OperatingPoint:
        """The cutoff by one rule; the band is the same, widened to hold the cutoff."""
        threshold = choose_threshold(self.plateau, rule)
        band = self.review.band if self.review else self.plateau
        ends = Interval(low=min(band.low, threshold), high=max(band.high, threshold))
        return OperatingPoint(threshold, ends)


def read(study: Study, radiographs: Radiographs, trained: Trained, *, bounded: bool) -> Reading:
    """Temperature and cutoff on validation images and children; the band on the images alone.

    The band is found only if it is to keep a bound.

    Children of one image are no independent images, so a bound on errors cannot count them.
    Where errors lie even far from the cutoff, it is all of 0..1: every image is for review.
    """
    pairs = validation_pairs(study, radiographs)
    labels = radiographs.labels[pairs.images.numpy()]
    temperature = fit_temperature(trained.validation, labels)
    pfi = scaled(trained.validation, temperature).astype(np.float32)
    measured_on = f"validation images, {study.finetune.children} children of each"
    plateau = youden_plateau(pfi, labels, measured_on)
    if not bounded:
        return Reading(temperature, plateau, None)
    own = (pairs.kinds == 0).numpy()
    threshold = choose_threshold(plateau, study.assess.rule)
    review = _review(study, pfi[own], labels[own], threshold)
    return Reading(temperature, plateau, with_plateau(review, plateau))


def _review(study: Study, pfi: Pfi, labels: npt.NDArray[np.int64], threshold: float) -> ReviewBand:
    bound, confidence = study.assess.error_bound, study.assess.confidence
    try:
        return review_band_for(
            pfi, labels, threshold, bound, confidence, measured_on="validation images"
        )
    except ValueError:  # wrong even far from the cutoff: then no answer is without review
        return ReviewBand(
            band=Interval(low=0, high=1),
            error_bound=bound,
            confidence=confidence,
            attained=0,
            measured_on="validation images",
            images=len(pfi),
            coverage=proportion(0, len(pfi)),
        )


@dataclass(frozen=True)
class Served:
    """A network as it would be served: exported with its temperature, run by ONNX Runtime."""

    session: onnxruntime.InferenceSession

    def __call__(self, tensors: npt.NDArray[np.uint8]) -> Pfi:
        """(N, 1, S, S) uint8 -> (N,) PFI."""
        return in_batches(lambda part: self.session.run(None, {"tensors": part})[0], tensors)


def serve(trained: Trained, reading: Reading, size: int) -> Served:
    """Export a candidate."""
    network = PfiNetwork(load_best(trained.folder, torch.device("cpu")), reading.temperature)
    onnx = export(network.eval(), size)
    return Served(onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]))


def softened(trained: Trained) -> Predict:
    """A candidate whose PFIs tell apart what is rounded to 0 and 1 in its own: for its gallery."""
    device = pick_device()
    network = load_best(trained.folder, device)
    return lambda tensors: predict(network, tensors, device, temperature=SOFT)


@dataclass(frozen=True)
class Tested:
    """PFIs of test images, as they are and transformed as in Figure 6."""

    rows: tuple[Row, ...]
    pfi: Pfi
    transformed: dict[str, Pfi]
    images_per_second: float

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) in {0: lateral, 1: frontal}."""
        return labels_of(self.rows)

    def evaluations(self, point: OperatingPoint) -> list[Evaluation]:
        """Every test row at one operating point."""
        report = by_source("test", self.pfi, self.rows, point)
        grid = np.concatenate(list(self.transformed.values()))
        rows = self.rows * len(self.transformed)
        report.append(evaluate("test, Figure 6 grid", grid, rows, point, GRID_NOTE))
        for name, pfi in self.transformed.items():
            report.append(evaluate(f"test, Figure 6: {name}", pfi, self.rows, point))
        return report

    def images(self) -> tuple[TestImage, ...]:
        """Each image with all its PFIs."""
        return tuple(
            TestImage(
                file=row.file,
                source=row.source,
                patient_id=row.patient_id,
                licence=row.licence,
                origin=row.origin,
                view=cast("View", row.view),  # a study reads no manifest with others
                pfi=float(self.pfi[i]),
                transformed={name: float(pfi[i]) for name, pfi in self.transformed.items()},
            )
            for i, row in enumerate(self.rows)
        )


def test_images(study: Study, radiographs: Radiographs, served: Predict) -> Tested:
    """Predict the test images, and all of them transformed in each way of Figure 6.

    Raises:
        ValueError: A transformation leaves a test image blank.
    """
    at = radiographs.of("test")
    rows = radiographs.rows_at(at)
    tensors = radiographs.images.tensors[at]
    served(tensors[:SERVING_BATCH])  # the first call of a session is slower
    began = time.perf_counter()
    pfi = served(tensors)
    seconds = time.perf_counter() - began
    grid = dict[str, Pfi]()
    for name, change in FIGURE_6.items():
        changed = transformed(rows, study.data.images, study.preprocess, change)
        if changed.rows != list(rows):  # each image is compared with all its transformed forms
            blank = sorted({row.file for row in rows} - {row.file for row in changed.rows})
            raise ValueError(f"blank after {name!r}, leave out: {', '.join(blank)}")
        grid[name] = served(changed.tensors)
    return Tested(tuple(rows), pfi, grid, len(rows) / seconds)


test_images.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def assessed(
    tested: Tested, reading: Reading, crossed: Mapping[Rule, Sequence[Evaluation]]
) -> tuple[Assessed, ...]:
    """All test rows at both cutoffs, other sources' included."""
    return tuple(
        Assessed(
            rule=rule,
            threshold=reading.point(rule).threshold,
            evaluations=(*tested.evaluations(reading.point(rule)), *crossed[rule]),
        )
        for rule in RULES
    )


def calibration(tested: Tested, reading: Reading) -> Calibration:
    """How well PFI is a probability on test images, with the temperature and without."""
    truth = tested.labels
    grid_truth = np.tile(truth, len(tested.transformed))
    grid = np.concatenate(list(tested.transformed.values()))
    undone = 1 / reading.temperature
    before, grid_before = scaled(tested.pfi, undone), scaled(grid, undone)
    return Calibration(
        temperature=reading.temperature,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(tested.pfi, truth),
        ece_grid_before=expected_calibration_error(grid_before, grid_truth),
        ece_grid_after=expected_calibration_error(grid, grid_truth),
        reliability_before=reliability(grid_before, grid_truth),
        reliability_after=reliability(grid, grid_truth),
    )


def crossing(
    name: str, radiographs: Radiographs, other: str, served: Predict, reading: Reading
) -> dict[Rule, Evaluation]:
    """A network fitted elsewhere, tested on all images of the source `other`, at both cutoffs."""
    at = radiographs.of_source(other)
    pfi, rows = served(radiographs.images.tensors[at]), radiographs.rows_at(at)
    return {rule: evaluate(name, pfi, rows, reading.point(rule)) for rule in RULES}
