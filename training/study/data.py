"""A study's radiographs, its splits, and batches of their children."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store import PreprocessSpec
from training.augmentation.augmented_views import CHILDREN, children
from training.data.manifest import LabelledImages, Part, Row, read_images
from training.data.split import By, split
from training.study.config import Study
from training.train import processes
from training.train.sampling import sampling_weights

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Radiographs:
    """All images of the manifest, in its order, and the part that each belongs to."""

    images: LabelledImages
    parts: tuple[Part, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The manifest's rows."""
        return self.images.rows

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) in {0: lateral, 1: frontal}."""
        return self.images.labels

    def of(self, part: Part) -> Indices:
        """Positions of one part's images."""
        return np.flatnonzero(np.array(self.parts) == part)

    def of_source(self, source: str) -> Indices:
        """Positions of one source's images."""
        return np.flatnonzero(np.array([row.source == source for row in self.rows]))

    def rows_at(self, at: Indices) -> list[Row]:
        """The rows at these positions."""
        return [self.rows[i] for i in at]


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


@dataclass(frozen=True)
class Pairs:
    """(M,) images, by position, and (M,) kinds: the children 0..105 that are made of them."""

    images: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        """M."""
        return len(self.images)

    def __getitem__(self, at: slice | Tensor) -> Pairs:
        """Some of them."""
        return Pairs(self.images[at], self.kinds[at])


def pairs_of(at: Indices, count: int, seed: int) -> Pairs:
    """`count` children of each image: itself, and others drawn for it without replacement."""
    kinds = [_kinds(int(image), count, seed) for image in at]
    images = torch.from_numpy(np.repeat(at, count))
    return Pairs(images, torch.from_numpy(np.concatenate(kinds)))


def _kinds(image: int, count: int, seed: int) -> Indices:
    others = np.random.default_rng((seed, image)).permutation(np.arange(1, len(CHILDREN)))
    return np.concatenate(([0], others[: count - 1]))


class ChildBatches:
    """Children of training images, made where training runs; epoch by epoch in another order.

    Args:
        radiographs: The images.
        at: Positions of those to train on.
        batch: Children of one step, over all processes.
        epoch_images: At most as many children an epoch; None: every child of every image.
        balance: Draw by `sampling_weights` instead of taking each child once.
        seed: Equal seeds give equal batches.
        device: Where the images lie and the children are made.
    """

    def __init__(
        self,
        radiographs: Radiographs,
        at: Indices,
        *,
        batch: int,
        epoch_images: int | None,
        balance: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.at, self.seed, self.device = torch.from_numpy(at), seed, device
        self.tensors = torch.from_numpy(radiographs.images.tensors[at]).to(device)
        self.labels = torch.from_numpy(radiographs.labels[at]).to(device)
        rows = radiographs.rows_at(at)
        self.weights = torch.from_numpy(sampling_weights(rows)) if balance else None
        self.epoch_images = min(epoch_images or len(at) * len(CHILDREN), len(at) * len(CHILDREN))
        self.count = min(batch, self.epoch_images)
        self.steps = self.epoch_images // self.count  # an epoch; what is left over is not taken
        self.epoch, self.order = -1, Pairs(self.at[:0], self.at[:0])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of one step."""
        epoch, number = divmod(step, self.steps)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._shuffled(epoch)
        every = self.order[number * self.count : (number + 1) * self.count]
        own = every[slice(processes.rank(), None, processes.count())]
        places = own.images.to(self.device)
        identities = self.at[own.images].to(self.device)
        made = children(self.tensors[places], identities, own.kinds.to(self.device), self.seed)
        return made, self.labels[places]

    def _shuffled(self, epoch: int) -> Pairs:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.weights is None:
            order = torch.randperm(len(self.at) * len(CHILDREN), generator=random)
            order = order[: self.epoch_images]
            return Pairs(order // len(CHILDREN), order % len(CHILDREN))
        images = torch.multinomial(self.weights, self.epoch_images, True, generator=random)
        return Pairs(images, torch.randint(len(CHILDREN), images.shape, generator=random))


def made(radiographs: Radiographs, pairs: Pairs, seed: int, device: torch.device) -> Tensor:
    """(M, 1, S, S) float32 of 0..255: the children of `pairs`."""
    tensors = torch.from_numpy(radiographs.images.tensors[pairs.images.numpy()]).to(device)
    return children(tensors, pairs.images.to(device), pairs.kinds.to(device), seed)
