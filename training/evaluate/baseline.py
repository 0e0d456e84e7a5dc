"""What a new network must beat: regression on frozen features, an SVM on profiles, the header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight

from model_store import Evaluation, Interval
from service.imaging import ViewHeader
from service.imaging.data_set import offset_of
from service.imaging.elements import read_elements
from training.data.manifest import LabelledImages, Row, image_reader
from training.evaluate.metrics import OperatingPoint, Pfi, evaluate
from training.evaluate.torch_predictors import features
from training.networks.googlenet import GoogLeNet, load_pretrained

# The regression's own cutoff; nothing is tuned, so there is no band
HALF = OperatingPoint(0.5, Interval(low=0.5, high=0.5))
POINTS = 64  # of a profile
FOLDS = 5  # that calibrate the SVM


def frozen_features(
    tensors: npt.NDArray[np.uint8], weights: Path, device: torch.device, batch: int = 32
) -> npt.NDArray[np.float32]:
    """(N, 1, S, S) uint8 -> (N, 1024) averages of the last maps of the pre-trained network."""
    network = GoogLeNet()
    load_pretrained(network, weights)
    return features(network.to(device).eval(), tensors, device, batch)


def baseline_pfi(
    train: LabelledImages, test: LabelledImages, weights: Path, device: torch.device
) -> Pfi:
    """Fit the regression on `train`; returns (N,) PFI of `test`."""
    return regression_pfi(
        frozen_features(train.tensors, weights, device),
        train.labels,
        frozen_features(test.tensors, weights, device),
    )


def regression_pfi(
    train_features: npt.NDArray[np.float32],
    train_labels: npt.NDArray[np.int64],
    test_features: npt.NDArray[np.float32],
) -> Pfi:
    """Logistic regression on (N, F) features with labels (N,); returns (M,) PFI of (M, F)."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    model.fit(train_features, train_labels)
    pfi: Pfi = model.predict_proba(test_features)[:, 1]
    return pfi.astype(np.float32)


def profile_pfi(train: LabelledImages, test: LabelledImages) -> Pfi:
    """Fit a calibrated SVM on profiles of `train`, the views weighing the same.

    Of the features in the reference, the profiles and the body's size, not gradients or contours.

    Returns:
        (N,) PFI of `test`, by Platt scaling.

    Raises:
        ValueError: `train` has fewer than two images of a view.

    References:
        Xue et al., Chest X-ray Image View Classification, CBMS 2015.
    """
    fewest = int(np.bincount(train.labels, minlength=2).min())
    if fewest < 2:
        raise ValueError("the profiles' SVM needs two images of each view")
    scaler = StandardScaler().fit(profiles(train.tensors))
    folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
    model = CalibratedClassifierCV(SVC(), method="sigmoid", cv=folds, ensemble=False)
    model.fit(
        scaler.transform(profiles(train.tensors)),
        train.labels,
        sample_weight=compute_sample_weight("balanced", train.labels),
    )
    pfi: Pfi = model.predict_proba(scaler.transform(profiles(test.tensors)))[:, 1]
    return pfi.astype(np.float32)


def profiles(tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, 1, S, S) uint8 -> (N, 2 * POINTS + 3): the mean of each row, the mean of each column,
    how much of the height and of the width is body, and the ratio of these.
    """
    pictures = tensors[:, 0] / 255.0
    at = np.linspace(0, pictures.shape[-1] - 1, POINTS).round().astype(int)
    means = [pictures.mean(axis=axis) for axis in (2, 1)]
    # body is what is brighter than half of the brightest row or column
    extents = [(mean >= mean.max(axis=1, keepdims=True) / 2).mean(axis=1) for mean in means]
    height, width = extents
    return np.column_stack((means[0][:, at], means[1][:, at], height, width, width / height))


def headers_of(rows: Sequence[Row], images: Path) -> list[str]:
    """What the DICOM header says about each image: the manifest's word, or the file's; else ""."""
    read = image_reader(images)
    return [row.header.strip() or _view_position(read(row.file)) for row in rows]


def _view_position(data: bytes) -> str:
    if offset_of(data) is None:
        return ""
    return read_elements(memoryview(data)).text("ViewPosition") or ""


def header_evaluation(name: str, rows: Sequence[Row], headers: Sequence[str]) -> Evaluation | None:
    """How often View Position is right, where there is one; None where no image has one.

    Args:
        name: Of the row in the report.
        rows: (N,) the images.
        headers: (N,) their View Position (0018,5101); "" where absent or empty.

    Returns:
        A row whose images are those with a header. A term of neither view, as an oblique's, is
        wrong. There is no AUROC: a header has no degrees.
    """
    said = [(row, ViewHeader(header)) for row, header in zip(rows, headers, strict=True) if header]
    if not said:
        return None
    right = np.array([bool(header.agrees(row.view)) for row, header in said])
    truth = np.array([row.view == "frontal" for row, _ in said])
    neither = sum(header.view is None for _, header in said)
    note = f"View Position in {len(said)} of {len(rows)} images"
    note += f"; {neither} of them of neither view, taken for wrong" if neither else ""
    called = (right == truth).astype(np.float32)  # the view where right, the other where wrong
    row = evaluate(name, called, [row for row, _ in said], HALF, note)
    return row.model_copy(update={"auroc": None})
