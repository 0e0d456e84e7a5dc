"""Labelled radiographs: the manifest, its images, and the split by patient."""

from __future__ import annotations

import csv
import os
import random
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model_store import PreprocessSpec, View
from service.imaging import ImageError, Tensor, image_to_tensor

Part = Literal["train", "validation", "test"]
SHARES = {"validation": 0.2, "test": 0.2}  # of the images, as in the paper; the rest trains
COLUMNS = ("file", "view", "patient_id", "source")


class ManifestError(Exception):
    """The manifest, or an image it names, cannot be used; the message says which row."""


@dataclass(frozen=True)
class Row:
    """One labelled image."""

    file: str
    view: View
    patient_id: str
    source: str
    train_only: bool = False
    licence: str = ""
    origin: str = ""


@dataclass(frozen=True)
class LabelledImages:
    """Rows with their tensors, in the same order."""

    rows: tuple[Row, ...]
    tensors: npt.NDArray[np.uint8]  # (N, 1, S, S)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) in {0: lateral, 1: frontal}."""
        return np.array([row.view == "frontal" for row in self.rows], dtype=np.int64)


def read_manifest(path: Path) -> list[Row]:
    """Read a CSV with the columns file, view, patient_id, source and, if it has them, pool
    (`train`: never validation or test), licence and source_repo.

    Raises:
        ManifestError: A column is missing, or a row has another view than frontal or lateral.
    """
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ManifestError(f"{path} has no column {', '.join(missing)}")
        return [_row(path, number, record) for number, record in enumerate(table, start=2)]


def _row(path: Path, number: int, record: dict[str, str]) -> Row:
    view = record["view"]
    if view not in get_args(View):
        raise ManifestError(f"{path} line {number}: view is {view!r}, not frontal or lateral")
    if not record["patient_id"]:
        raise ManifestError(f"{path} line {number}: patient_id is empty")
    return Row(
        file=record["file"],
        view=view,  # type: ignore[arg-type]  # checked above, which mypy does not follow
        patient_id=record["patient_id"],
        source=record["source"],
        train_only=record.get("pool") == "train",
        licence=record.get("licence", ""),
        origin=record.get("source_repo", ""),
    )


def image_reader(images: Path) -> Callable[[str], bytes]:
    """A function from a manifest's file name to its bytes, out of a zip or a folder."""
    if images.is_dir():
        return lambda name: (images / name).read_bytes()
    archive = zipfile.ZipFile(images)  # read from one thread only
    return archive.read


def read_images(rows: Sequence[Row], images: Path, spec: PreprocessSpec) -> LabelledImages:
    """Read all images through the service's own `image_to_tensor`.

    Raises:
        ManifestError: An image is missing or cannot be read.
    """
    read = image_reader(images)

    def tensor_of(item: tuple[Row, bytes]) -> Tensor:
        row, data = item
        try:
            return image_to_tensor(data, spec)
        except ImageError as error:
            raise ManifestError(f"{row.file}: {error}") from error

    try:
        files: Iterable[tuple[Row, bytes]] = [(row, read(row.file)) for row in rows]
    except (KeyError, OSError) as error:
        raise ManifestError(f"an image is missing: {error}") from error
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        progress = tqdm(pool.map(tensor_of, files), "read", len(rows), unit="image", leave=False)
        tensors = np.stack(list(progress))
    return LabelledImages(tuple(rows), tensors)


def split_by_patient(
    rows: Sequence[Row], seed: int, test_share: float = SHARES["test"]
) -> dict[str, Part]:
    """Assign every patient to one part, stratified by source and view.

    A stratum is the patients whose first source and whose views are the same. Within it, shuffled
    patients fill validation and test up to their share of images. A patient with any train-only
    image trains.

    Returns:
        patient_id -> part.
    """
    of_patient: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_patient[row.patient_id].append(row)
    strata: dict[tuple[str, tuple[View, ...]], list[str]] = defaultdict(list)
    parts: dict[str, Part] = {}
    for patient, own in sorted(of_patient.items()):
        if any(row.train_only for row in own):
            parts[patient] = "train"
        else:
            views = tuple(sorted({row.view for row in own}))
            strata[min(row.source for row in own), views].append(patient)
    for stratum, patients in sorted(strata.items()):
        random.Random(f"{seed}:{stratum}").shuffle(patients)
        shares: dict[Part, float] = {"test": test_share, "validation": SHARES["validation"]}
        parts.update(_fill(patients, {p: len(of_patient[p]) for p in patients}, shares))
    return parts


def _fill(
    patients: Sequence[str], images: dict[str, int], shares: dict[Part, float]
) -> dict[str, Part]:
    total = sum(images.values())
    parts: dict[str, Part] = dict.fromkeys(patients, "train")
    waiting = iter(patients)
    for part, share in shares.items():
        filled = 0
        while filled < round(share * total):
            patient = next(waiting, None)
            if patient is None:
                return parts  # a stratum of few patients with many images each
            parts[patient] = part
            filled += images[patient]
    return parts
