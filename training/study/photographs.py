"""Grey photographs for pre-training: a folder per class, as ImageNet's, or a zip of them."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from training.data.manifest import ManifestError, image_reader
from training.study.config import Data
from training.train import processes
from training.train.trainer import step_seed

ENDINGS = (".jpg", ".jpeg", ".png")
VALIDATION_ONE_IN = 20  # where no manifest says which
READ_AHEAD = 512
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """One photograph."""

    file: str
    label: str
    validation: bool
    subset: bool


def list_photographs(data: Data, *, subset: bool) -> list[Photograph]:
    """All photographs, or those of the subset, from the manifest or by folder.

    Without a manifest, one in twenty validates, by a hash of its name.

    Raises:
        ManifestError: There are none to train, none to validate, or fewer than two classes.
    """
    if data.photographs is None:
        raise ManifestError("data.photographs is not given, and the greyscale steps need it")
    found = _from_manifest(data) if data.photographs_manifest else _from_folders(data)
    found = [photo for photo in found if photo.subset or not subset]
    what = f"{data.photographs}{', its subset,' if subset else ''} holds"
    if len({photo.label for photo in found}) < 2:
        raise ManifestError(f"{what} fewer than two classes of photographs")
    if {photo.validation for photo in found} != {True, False}:
        raise ManifestError(
            f"{what} no photograph to {'train' if found[0].validation else 'validate'}"
        )
    return found


def _from_manifest(data: Data) -> list[Photograph]:
    assert data.photographs_manifest is not None
    with data.photographs_manifest.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = {"file", "label", "split", "subset"} - set(table.fieldnames or ())
        if missing:
            raise ManifestError(f"{data.photographs_manifest} has no column {sorted(missing)}")
        return [
            Photograph(row["file"], row["label"], row["split"] == "val", row["subset"] == "1")
            for row in table
        ]


def _from_folders(data: Data) -> list[Photograph]:
    subset = set[str]()
    if data.subset_classes is not None:
        subset = set(data.subset_classes.read_text(encoding="utf-8").split())
    return [
        Photograph(name, label, _one_in_twenty(name), label in subset)
        for name in sorted(_names(data.photographs))
        if (label := PurePosixPath(name).parent.name) and name.lower().endswith(ENDINGS)
    ]


def _names(photographs: Path | None) -> Iterable[str]:
    assert photographs is not None
    if photographs.is_dir():
        return (p.relative_to(photographs).as_posix() for p in photographs.rglob("*"))
    with zipfile.ZipFile(photographs) as archive:
        return archive.namelist()


def _one_in_twenty(name: str) -> bool:
    return int.from_bytes(sha256(name.encode()).digest()[:4]) % VALIDATION_ONE_IN == 0


def read_photographs(photos: list[Photograph], folder: Path, side: int, cache: Path) -> Grey:
    """(N, side, side) uint8, memory-mapped: read once into `cache`, taken up from there later.

    The middle square of each photograph, in grey.

    Raises:
        ManifestError: Photographs are missing or cannot be read; all are listed.
    """
    names = "\n".join(photo.file for photo in photos).encode()
    file = cache / f"photographs-{side}-{sha256(names).hexdigest()[:12]}.npy"
    if not file.exists():
        draft = file.with_suffix(".part")
        shape = (len(photos), side, side)
        stored = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        _fill(stored, photos, folder, side)
        stored.flush()
        draft.replace(file)
    array: Grey = np.load(file, mmap_mode="r")
    return array


def _fill(stored: Grey, photos: list[Photograph], folder: Path, side: int) -> None:
    read = image_reader(folder)
    problems: list[str] = []

    def store(number: int, data: bytes) -> str | None:
        try:
            with Image.open(io.BytesIO(data)) as image:
                stored[number] = np.asarray(ImageOps.fit(image.convert("L"), (side, side)))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return f"{photos[number].file}: {error}"
        return None

    with ThreadPoolExecutor() as pool, tqdm(total=len(photos), desc="photographs") as progress:
        for start in range(0, len(photos), READ_AHEAD):  # all at once would not fit in memory
            chunk = range(start, min(start + READ_AHEAD, len(photos)))
            files: dict[int, bytes] = {}
            for number in chunk:
                try:
                    files[number] = read(photos[number].file)
                except (KeyError, OSError):
                    problems.append(f"{photos[number].file}: missing")
            problems += [p for p in pool.map(store, files.keys(), files.values()) if p]
            progress.update(len(chunk))
    if problems:
        raise ManifestError(*problems)


class PhotoBatches:
    """Random crops of photographs, mirrored at random; epoch by epoch in another order.

    Args:
        pictures: (N, side, side) uint8.
        labels: (N,) int64 classes.
        at: Positions of those to train on.
        size: S of the crops.
        batch: Photographs of one step, over all processes.
        epoch_images: At most as many an epoch; None: all.
        seed: Equal seeds give equal batches.
        device: Where batches go.
    """

    def __init__(
        self,
        pictures: Grey,
        labels: npt.NDArray[np.int64],
        at: npt.NDArray[np.int64],
        *,
        size: int,
        batch: int,
        epoch_images: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.pictures, self.labels, self.at = pictures, labels, at
        self.size, self.seed, self.device = size, seed, device
        self.epoch_images = min(epoch_images or len(at), len(at))
        self.count = min(batch, self.epoch_images)
        self.steps = self.epoch_images // self.count
        self.epoch, self.order = -1, at

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of one step."""
        epoch, number = divmod(step, self.steps)
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = np.random.default_rng((self.seed, epoch)).permutation(self.at)
        every = self.order[number * self.count : (number + 1) * self.count]
        own = every[processes.rank() :: processes.count()]
        random = np.random.default_rng(step_seed(self.seed, step))
        spare = self.pictures.shape[-1] - self.size
        tops, lefts = random.integers(0, spare + 1, (2, len(own)))
        crops = np.stack(
            [
                self.pictures[i, top : top + self.size, left : left + self.size]
                for i, top, left in zip(own, tops, lefts, strict=True)
            ]
        )
        mirrored = random.random(len(own)) < 0.5
        crops[mirrored] = crops[mirrored, :, ::-1]
        tensors = torch.from_numpy(crops[:, None]).to(self.device).float()
        return tensors, torch.from_numpy(self.labels[own]).to(self.device)


def middle(pictures: Grey, size: int) -> Grey:
    """(N, side, side) -> the middle (N, size, size) of each."""
    start = (pictures.shape[-1] - size) // 2
    return pictures[:, start : start + size, start : start + size]
