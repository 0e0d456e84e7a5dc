"""The same radiographs split otherwise: another seed, by image, one source against the others."""

from __future__ import annotations

from dataclasses import replace

from training.manifest import By, Part, split
from training.study.config import Study
from training.study.data import Radiographs


def resplit(study: Study, radiographs: Radiographs, seed: int, by: By) -> Radiographs:
    """The study's shares with another seed or unit, whatever split the manifest gives.

    Images that may only train, and overlap in patients with others, train here by either unit:
    both are then tested on the same kind of images.
    """
    rows = [replace(row, part=None) for row in radiographs.rows]
    parts = split(rows, seed, by, study.split.validation, study.split.test)
    pairs = zip(rows, parts, strict=True)
    return Radiographs(
        radiographs.images, tuple("train" if row.train_only else part for row, part in pairs)
    )


def only_source(study: Study, radiographs: Radiographs, source: str, seed: int) -> Radiographs:
    """One source trains and validates, split by patient; all others are the test."""
    own = [i for i, row in enumerate(radiographs.rows) if row.source == source]
    rows = [replace(radiographs.rows[i], part=None) for i in own]
    parts: list[Part] = ["test"] * len(radiographs.rows)
    inner = split(rows, seed, "patient", study.split.validation, 0.0)
    for i, part in zip(own, inner, strict=True):
        parts[i] = part
    return Radiographs(radiographs.images, tuple(parts))
