"""The rows of a card, for anything that answers tensors with PFIs: torch or ONNX, of any size.

The input's size and window are those of `settings`: a network of 128 pixels is assayed with
`dataclasses.replace(settings, size=128)`, on the same patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from model_store import Evaluation, Plateau
from training.augmentation.corruptions import CORRUPTIONS
from training.augmentation.figure6 import FIGURE_6
from training.augmentation.image_files import Change, Transformed, transformed
from training.data.manifest import Row, read_images, read_manifest, views_of
from training.evaluate.cutoff import youden_plateau
from training.evaluate.metrics import OperatingPoint, Pfi, Predict, by_source, evaluate, sources_of
from training.train.fit import validation_images
from training.train.settings import FitSettings, rows_of

# Augmented copies of a validation image, for the cutoff of a student: it has more close calls, and
# among few laterals one of them would decide
CUTOFF_CHILDREN = 64
GRID_NOTE = "all transformations of each image; the interval takes them for independent"


def fitted_plateau(predict: Predict, settings: FitSettings) -> Plateau:
    """Youden's plateau on the run's validation images and `settings.children` copies of each.

    Args:
        predict: (N, 1, S, S) uint8 -> (N,) PFI, for any N; S is `settings.size`.
        settings: Of the run whose split this is.

    Raises:
        ManifestError, ValueError: The data cannot be used.
    """
    images = validation_images(settings)
    measured_on = f"validation images and {settings.children} children of each"
    return youden_plateau(predict(images.tensors), images.labels, measured_on)


def test_rows(predict: Predict, settings: FitSettings, point: OperatingPoint) -> list[Evaluation]:
    """The run's held-out patients: pooled and by source, then the transformations of Figure 6.

    Args:
        predict: (N, 1, S, S) uint8 -> (N,) PFI, for any N; S is `settings.size`.
        settings: Of the run whose split this is.
        point: Fixed before.

    Raises:
        ManifestError: The data cannot be used.
    """
    rows = views_of(rows_of(settings, "test"))
    pfi = predict(read_images(rows, settings.images, settings.spec).tensors)
    changed = _changed(FIGURE_6, rows, settings)
    figure6 = _rows_of_changes("test, Figure 6", " grid", predict, changed, point)
    return [*by_source("test", pfi, rows, point), *figure6]


test_rows.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


def corruption_rows(
    predict: Predict, settings: FitSettings, rows: Sequence[Row], point: OperatingPoint
) -> list[Evaluation]:
    """The views of all images after each of CORRUPTIONS, made on the image itself.

    Args:
        predict: (N, 1, S, S) uint8 -> (N,) PFI, for any N; S is `settings.size`.
        settings: Of the run whose split this is.
        rows: Radiographs of its test.
        point: Fixed before.
    """
    changed = _changed(CORRUPTIONS, rows, settings)
    return _rows_of_changes("test, corruptions", "", predict, changed, point)


def crossing_rows(
    predict: Predict, settings: FitSettings, point: OperatingPoint
) -> list[Evaluation]:
    """All images of each mixed source but the one that was fitted on, a row each.

    Args:
        predict: (N, 1, S, S) uint8 -> (N,) PFI, for any N; S is `settings.size`.
        settings: Of a run that was fitted on one source.
        point: Fixed before, on images of that source.

    Raises:
        ManifestError: The data cannot be used.
    """
    (own,) = settings.sources
    rows = read_manifest(settings.manifest)
    report = []
    for other in mixed_sources(rows):
        if other == own:
            continue
        part = [row for row in rows if row.source == other]
        pfi = predict(read_images(part, settings.images, settings.spec).tensors)
        report.append(evaluate(f"fit on {own}, test on {other}", pfi, part, point))
    return report


def mixed_sources(rows: Sequence[Row]) -> list[str]:
    """The sources that hold both views: one of them can be fitted on, the others tested on."""
    sources = sources_of(rows)
    return [s for s in sources if len({row.view for row in rows if row.source == s}) == 2]


def _changed(
    changes: Mapping[str, Change], rows: Sequence[Row], settings: FitSettings
) -> Iterator[tuple[str, Transformed]]:
    for name, change in changes.items():
        yield name, transformed(rows, settings.images, settings.spec, change)


def _rows_of_changes(
    name: str,
    of_all: str,
    predict: Predict,
    changed: Iterable[tuple[str, Transformed]],
    point: OperatingPoint,
) -> list[Evaluation]:
    """A row of all changes together, named `name` and `of_all`, then one of each."""
    each, pfis, rows = list[Evaluation](), list[Pfi](), list[Row]()
    for change, images in changed:
        pfi = predict(images.tensors)
        each.append(evaluate(f"{name}: {change}", pfi, images.rows, point))
        pfis.append(pfi)
        rows += images.rows
    return [evaluate(name + of_all, np.concatenate(pfis), rows, point, GRID_NOTE), *each]
