"""The same radiographs otherwise: another seed, by image, one source against all, other tensors."""

from __future__ import annotations

from dataclasses import replace

from model_store import PreprocessSpec
from training.data.manifest import By, Part, read_images, split
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
    own = radiographs.of_source(source)
    rows = [replace(row, part=None) for row in radiographs.rows_at(own)]
    parts: list[Part] = ["test"] * len(radiographs.rows)
    inner = split(rows, seed, "patient", study.split.validation, 0.0)
    for i, part in zip(own, inner, strict=True):
        parts[i] = part
    return Radiographs(radiographs.images, tuple(parts))


def read_otherwise(study: Study, radiographs: Radiographs, spec: PreprocessSpec) -> Radiographs:
    """The same split of tensors that another preprocessing makes; read only if it is another."""
    if spec == study.preprocess:
        return radiographs
    images = read_images(radiographs.rows, study.data.images, spec)
    return Radiographs(images, radiographs.parts)
