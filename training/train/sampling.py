"""Which images a batch holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.augmentation.augment import ASKED, Augmentation
from training.data.manifest import LabelledImages, Row
from training.networks.heads import Head
from training.train import processes
from training.train.heads import after_variation, answers_of
from training.train.trainer import step_seed

ONE_VIEW_SHARE = 0.2  # of a batch, from sources that hold one view and so teach nothing about it
ONE_VIEW_SHARE_OF_HEADS = 0.35  # the same where they teach how an image lies, too
NEGATIVE_SHARE = 0.3  # of a batch, images that are no chest radiograph, where there are any


def sampling_weights(
    rows: Sequence[Row], one_view_share: float = ONE_VIEW_SHARE
) -> npt.NDArray[np.float64]:
    """(N,) probabilities that balance the views within each source that holds both.

    Without this a network can score by recognising the source. Sources of one view share
    `one_view_share` by the root of their size; the others share the rest equally. Images that are
    no chest radiograph have NEGATIVE_SHARE of all, which their sources share equally.
    """
    sources = np.array([row.source for row in rows])
    negative = np.array([row.view == "not_chest" for row in rows])
    weights = np.zeros(len(rows))
    if not negative.any():
        return _weights_of_views(rows, sources, one_view_share)
    radiographs = [row for row in rows if row.view != "not_chest"]
    of_views = _weights_of_views(radiographs, sources[~negative], one_view_share)
    weights[~negative] = (1 - NEGATIVE_SHARE) * of_views
    names = np.unique(sources[negative])
    for name in names:
        own = negative & (sources == name)
        weights[own] = NEGATIVE_SHARE / len(names) / own.sum()
    return weights


def _weights_of_views(
    rows: Sequence[Row], sources: npt.NDArray[np.str_], one_view_share: float
) -> npt.NDArray[np.float64]:
    frontal = np.array([row.view == "frontal" for row in rows])
    weights = np.zeros(len(rows))
    mixed: list[npt.NDArray[np.bool_]] = []
    single: list[npt.NDArray[np.bool_]] = []
    for source in np.unique(sources):
        own = sources == source
        (mixed if 0 < frontal[own].sum() < own.sum() else single).append(own)
    for own in mixed:
        for group in (own & frontal, own & ~frontal):
            weights[group] = 0.5 / group.sum()
    if mixed:
        weights *= (1 - one_view_share if single else 1) / len(mixed)
    roots = sum(np.sqrt(own.sum()) for own in single)
    for own in single:
        weights[own] = (one_view_share if mixed else 1) * np.sqrt(own.sum()) / roots / own.sum()
    return weights


class RandomBatches:
    """Batches drawn by `sampling_weights`, each image transformed at random.

    Args:
        train: Images of twice the size that comes out, for sharp crops.
        size: S of the batches.
        batch: Images of one step, over all processes.
        seed: Equal seeds give equal batches.
        device: Where batches are made, and stay.
        heads: What is asked of each image; none: its view alone, with labels (B,).
    """

    def __init__(
        self,
        train: LabelledImages,
        *,
        size: int,
        batch: int,
        seed: int,
        device: torch.device,
        heads: Sequence[Head] = (),
    ) -> None:
        self.heads = tuple(heads)
        self.tensors = torch.from_numpy(train.tensors)
        self.labels = answers_of(train.rows, heads) if heads else torch.from_numpy(train.labels)
        share = ONE_VIEW_SHARE_OF_HEADS if heads else ONE_VIEW_SHARE
        self.weights = torch.from_numpy(sampling_weights(train.rows, share))
        self.augment = augmentation_for(self.heads, seed, size, device)
        self.count, self.seed, self.device = batch, seed, device

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of one step."""
        picker = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        picked = torch.multinomial(self.weights, self.count, replacement=True, generator=picker)
        own = picked[processes.rank() :: processes.count()]
        self.augment.random.manual_seed(step_seed(self.seed, step))
        varied = self.augment.vary(self.tensors[own])
        labels = self.labels[own].to(self.device)
        if self.heads:
            labels = after_variation(labels, varied, self.heads)
        return varied.tensors, labels


def augmentation_for(
    heads: Sequence[Head], seed: int, size: int, device: torch.device | str = "cpu"
) -> Augmentation:
    """The augmentation of a network with these heads; none: of the published protocol."""
    if not heads:
        return Augmentation(seed, size, device)
    return Augmentation(seed, size, device, chances=ASKED, scenes=True)
