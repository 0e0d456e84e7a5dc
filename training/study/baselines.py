"""What the chosen candidate is measured against: baselines, and the other intensity window."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_store import Evaluation
from training.data.manifest import LabelledImages
from training.evaluate.baseline import (
    HALF,
    header_evaluation,
    headers_of,
    profile_pfi,
    regression_pfi,
)
from training.evaluate.metrics import Pfi, evaluate
from training.study.candidates import cached_features
from training.study.config import Study
from training.study.data import Indices, Radiographs, pairs_of, read_otherwise
from training.study.frozen import Features, features, fit_head, trunk
from training.study.pretrain import Pretrained
from training.train.evaluation_rows import mixed_sources

WINDOWS = {"min-max window": (0.0, 100.0), "window from percentile 0.5 to 99.5": (0.5, 99.5)}


def colour_features(study: Study, radiographs: Radiographs, run: Path) -> Features:
    """Features of all images by the network as it was pre-trained on colour ImageNet."""
    start = Pretrained("colour", study.data.weights, 0)
    return cached_features(study, radiographs, start, run / "candidates" / "features")


def baselines(study: Study, radiographs: Radiographs, every: Features) -> list[Evaluation]:
    """Header, profiles and frozen features: on the same test images, and across sources."""
    at = radiographs.of("test")
    rows = radiographs.rows_at(at)
    header = header_evaluation(
        "test, header ViewPosition", rows, headers_of(rows, study.data.images)
    )
    found = [header] if header else []
    found += _fitted("test", radiographs, every, radiographs.of("train"), at)
    sources = mixed_sources(radiographs.rows)
    for source in sources:
        own = radiographs.of_source(source)
        for other in sources:
            if other != source:
                name = f"fit on {source}, test on {other}"
                found += _fitted(name, radiographs, every, own, radiographs.of_source(other))
    return found


def _fitted(
    name: str, radiographs: Radiographs, every: Features, train: Indices, test: Indices
) -> list[Evaluation]:
    rows = radiographs.rows_at(test)
    originals = every.originals()
    values = originals.values.numpy()  # in the order of the images
    found: dict[str, Pfi] = {
        "profiles + SVM": profile_pfi(_images(radiographs, train), _images(radiographs, test)),
        "frozen features + logistic regression": regression_pfi(
            values[train], radiographs.labels[train], values[test]
        ),
    }
    return [evaluate(f"{name}, {model}", pfi, rows, HALF) for model, pfi in found.items()]


def _images(radiographs: Radiographs, at: Indices) -> LabelledImages:
    return LabelledImages(tuple(radiographs.rows_at(at)), radiographs.images.tensors[at])


def windows(study: Study, radiographs: Radiographs, run: Path) -> list[Evaluation]:
    """Both intensity windows: a classifier on frozen colour features, judged on validation."""
    network = trunk(study.data.weights)
    found = []
    for name, percentiles in WINDOWS.items():
        spec = study.preprocess.model_copy(update={"window_percentiles": percentiles})
        windowed = read_otherwise(study, radiographs, spec)
        at = np.concatenate((windowed.of("train"), windowed.of("validation")))
        cache = run / "windows" / f"{percentiles[0]:g}-{percentiles[1]:g}.npz"
        every = features(network, windowed, pairs_of(at, 1, study.seed), study.seed, cache)
        train = every.of_images(windowed.of("train"))
        validation = every.of_images(windowed.of("validation"))
        head = fit_head(windowed, train, validation, study.finetune, study.seed)
        judged = windowed.rows_at(validation.pairs.images.numpy())
        found.append(evaluate(f"validation, {name}", head.pfi(validation.values), judged, HALF))
    return found
