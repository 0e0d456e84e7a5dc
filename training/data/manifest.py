"""Labelled radiographs: the manifest and its images, checked whole, and the split."""

from __future__ import annotations

import csv
import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model_store import AnsweredView, PreprocessSpec, View
from service.imaging import ImageError, Tensor, image_to_tensor

Part = Literal["train", "validation", "test"]
COLUMNS = ("file", "view", "patient_id", "source")


class ManifestError(Exception):
    """The manifest, or images it names, cannot be used.

    `problems` are all that was found, one sentence each; the message has one a line.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Row:
    """One labelled image."""

    file: str
    view: AnsweredView
    patient_id: str
    source: str
    train_only: bool = False
    licence: str = ""
    origin: str = ""
    line: int = 0  # of the manifest; 0 where the row is from elsewhere
    part: Part | None = None  # where the manifest itself says how to split
    header: str = ""  # what the file's DICOM header says of the view, verbatim
    projection: str = ""  # PA or AP, where it is known
    upright: str = ""  # "no" where it lies on its side, or is mirrored or inverted

    @property
    def is_upright(self) -> bool:
        """Upright, not mirrored, bone bright; if not, nothing is known of these."""
        return self.upright != "no"


@dataclass(frozen=True)
class LabelledImages:
    """Rows with their tensors, in the same order."""

    rows: tuple[Row, ...]
    tensors: npt.NDArray[np.uint8]  # (N, 1, S, S)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) in {0: lateral, 1: frontal}; none may be not_chest."""
        return labels_of(self.rows)


def labels_of(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    """(N,) in {0: lateral, 1: frontal}.

    Raises:
        ValueError: An image is not_chest, and has no view.
    """
    if any(row.view == "not_chest" for row in rows):
        raise ValueError("an image that is not_chest has no label of a view")
    return np.array([row.view == "frontal" for row in rows], dtype=np.int64)


def views_of(rows: Sequence[Row]) -> list[Row]:
    """The radiographs of the chest, which have a view."""
    return [row for row in rows if row.view != "not_chest"]


def read_manifest(path: Path, *, negatives: bool = False) -> list[Row]:
    """Read a CSV with the columns file, view, patient_id, source and, if it has them, pool
    (`train`: never validation or test), split (train, validation or test: then in every line),
    header_view_position, projection (PA or AP), upright (`no` where an image lies on its side, is
    mirrored or inverted), licence and source_repo.

    Args:
        path: The file.
        negatives: Also allow the view not_chest, of images that are no chest radiograph.

    Raises:
        ManifestError: A column is missing, a line contradicts itself or another one, or no line
            is frontal, or none lateral; it has all problems of the file.
    """
    rows, problems = _parse(path, negatives)
    if problems:
        raise ManifestError(*problems)
    return rows


def read_and_check(
    path: Path,
    images: Path,
    spec: PreprocessSpec,
    *,
    negatives: bool = False,
    check: Callable[[], None] = lambda: None,
) -> LabelledImages:
    """Read a manifest and every image it names, so that a run never stops at a bad one later.

    Args:
        path: The manifest, as `read_manifest` takes it.
        images: Zip or folder that the manifest's files lie in.
        spec: How tensors are made of them.
        negatives: As in `read_manifest`.
        check: Called before the images are read, if the manifest has no problem. It raises what it
            finds; problems of a manifest come together with those of its images instead.

    Raises:
        ManifestError: With all problems of the manifest, and of the images of its sound lines.
    """
    rows, problems = _parse(path, negatives)
    if not problems:
        check()
    tensors = []
    try:
        for tensor, problem in _examine(rows, images, spec):
            tensors.append(tensor)
            problems += [f"{path.name} {problem}"] if problem else []
    except ManifestError as error:
        problems += error.problems
    if problems:
        raise ManifestError(*problems)
    return LabelledImages(tuple(rows), np.stack([t for t in tensors if t is not None]))


def _parse(path: Path, negatives: bool) -> tuple[list[Row], list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
        table = csv.DictReader(file, restval="")
        names = Counter(table.fieldnames or ())
        if missing := [name for name in COLUMNS if name not in names]:
            return [], [f"{path.name} has no column {', '.join(missing)}"]
        if doubled := [name for name, number in names.items() if number > 1]:
            return [], [f"{path.name} has two columns {doubled[0]}"]
        rows = [_row(table.line_num, record) for record in table]
    views = get_args(AnsweredView) if negatives else get_args(View)
    found = {row.line: list(_in_line(row, views)) for row in rows}
    problems = [f"{path.name} line {line}: {each}" for line, own in found.items() for each in own]
    problems += [f"{path.name} {problem}" for problem in _between_lines(rows)]
    return [row for row in rows if not found[row.line]], problems


def _row(line: int, record: dict[str, str]) -> Row:
    return Row(
        file=record["file"],
        view=record["view"],  # type: ignore[arg-type]  # `_in_line` checks it
        patient_id=record["patient_id"],
        source=record["source"],
        train_only=record.get("pool") == "train",
        licence=record.get("licence", ""),
        origin=record.get("source_repo", ""),
        line=line,
        part=record.get("split") or None,  # type: ignore[arg-type]  # `_in_line` checks it
        header=record.get("header_view_position", ""),
        projection=record.get("projection", ""),
        upright=record.get("upright", ""),
    )


def _in_line(row: Row, views: Sequence[str]) -> Iterator[str]:
    if row.view not in views:
        yield f"view is {row.view!r}, not {', '.join(views[:-1])} or {views[-1]}"
    for name in ("file", "patient_id"):
        if not getattr(row, name):
            yield f"{name} is empty"
    if row.part not in (None, *get_args(Part)):
        yield f"split is {row.part!r}, not train, validation or test"
    if row.projection not in {"", "PA", "AP"}:
        yield f"projection is {row.projection!r}, not PA, AP or empty"
    if row.upright not in {"", "yes", "no"}:
        yield f"upright is {row.upright!r}, not yes, no or empty"
    if row.train_only and row.part not in (None, "train"):
        yield f"pool is 'train', but split is {row.part!r}"


def _between_lines(rows: Sequence[Row]) -> Iterator[str]:
    files: dict[str, Row] = {}
    patients: dict[str, Row] = {}
    for row in rows:
        first = files.setdefault(row.file, row)
        if first is not row and row.file:
            yield f"line {row.line}: {row.file} is listed in line {first.line} already"
        first = patients.setdefault(row.patient_id, row)
        if first.part and row.part and first.part != row.part and row.patient_id:
            yield (
                f"line {row.line}: patient {row.patient_id} is in {row.part} here, "
                f"and in {first.part} in line {first.line}"
            )
    unsplit = [row for row in rows if row.part is None]
    if 0 < len(unsplit) < len(rows):
        yield f"line {unsplit[0].line}: split is empty, one of {len(unsplit)} such; others have it"
    for view in get_args(View):
        if not any(row.view == view for row in rows):
            yield f"has no {view} image"


def image_reader(images: Path) -> Callable[[str], bytes]:
    """A function from a manifest's file name to its bytes, out of a zip or a folder.

    Raises:
        ManifestError: `images` is neither.
    """
    if images.is_dir():
        return lambda name: (images / name).read_bytes()
    if not zipfile.is_zipfile(images):
        raise ManifestError(f"{images} is neither a folder nor a zip file")
    archive, lock = zipfile.ZipFile(images), threading.Lock()

    def read(name: str) -> bytes:
        with lock:  # members share one file position
            return archive.read(name)

    return read


def read_images(rows: Sequence[Row], images: Path, spec: PreprocessSpec) -> LabelledImages:
    """Read all images through the service's own `image_to_tensor`.

    Raises:
        ManifestError: Images are missing, cannot be read, or are the same under two labels; it
            has all of them.
    """
    examined = list(_examine(rows, images, spec))
    problems = [problem for _, problem in examined if problem]
    if problems:
        raise ManifestError(*problems)
    return LabelledImages(tuple(rows), np.stack([t for t, _ in examined if t is not None]))


class _Image(NamedTuple):
    tensor: Tensor | None  # None where there is a problem
    digests: tuple[bytes, ...]  # SHA-256 of the file, and of the tensor
    problem: str


def _examine(
    rows: Sequence[Row], images: Path, spec: PreprocessSpec
) -> Iterator[tuple[Tensor | None, str]]:
    """Each row's tensor, and what is wrong with it."""
    read = image_reader(images)
    seen: dict[bytes, Row] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda row: _open(row, read, spec), rows)
        progress = tqdm(results, "read", len(rows), unit="image", leave=False)
        for row, image in zip(rows, progress, strict=True):
            twins = [seen.setdefault(digest, row) for digest in image.digests]
            other = next((twin for twin in twins if twin.view != row.view), None)
            if other:
                yield None, f"{_named(row)} is {row.view}, but the same image as {_twin(other)}"
            else:
                yield image.tensor, image.problem


def _open(row: Row, read: Callable[[str], bytes], spec: PreprocessSpec) -> _Image:
    try:
        data = read(row.file)
    except (KeyError, OSError):
        return _Image(None, (), f"{_named(row)} is missing")
    except (zipfile.BadZipFile, zlib.error) as error:
        return _Image(None, (), f"{_named(row)}: {error}")
    try:
        tensor = image_to_tensor(data, spec)
    except ImageError as error:
        return _Image(None, (), f"{_named(row)}: {error}")
    return _Image(tensor, (sha256(data).digest(), sha256(tensor.tobytes()).digest()), "")


def _named(row: Row) -> str:
    return f"line {row.line}: {row.file}" if row.line else row.file


def _twin(row: Row) -> str:
    return f"{row.file} in line {row.line}, which is {row.view}" if row.line else row.file
