"""Fully connected layers on frozen features: computed once, so that a candidate costs seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from tqdm import tqdm

from training.evaluate.metrics import balanced_loss
from training.networks.googlenet import GoogLeNet, load_pretrained
from training.study.config import Finetune
from training.study.data import Pairs, Radiographs, made
from training.train import processes
from training.train.sampling import sampling_weights
from training.train.trainer import Recipe

BATCH = 32  # of forward passes


@dataclass(frozen=True)
class Features:
    """(M, 1024) float32 features of children, with what they were made of."""

    values: Tensor
    pairs: Pairs
    labels: Tensor  # (M,)
    rate: float  # images/s they were computed at

    def originals(self) -> Features:
        """Those of the images themselves."""
        own = self.pairs.kinds == 0
        return Features(self.values[own], self.pairs[own], self.labels[own], self.rate)

    def of_images(self, at: npt.NDArray[np.int64]) -> Features:
        """Those of some images, by position."""
        own = torch.isin(self.pairs.images, torch.from_numpy(at))
        return Features(self.values[own], self.pairs[own], self.labels[own], self.rate)


def trunk(weights: Path) -> GoogLeNet:
    """The pre-trained network with a fresh classifier, on its device, in evaluation mode."""
    network = GoogLeNet()
    load_pretrained(network, weights)
    return network.to(processes.pick_device(), memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]  # torch's stub lacks this form


def features(
    network: GoogLeNet, radiographs: Radiographs, pairs: Pairs, seed: int, cache: Path
) -> Features:
    """The network's features of children; computed once, then read from `cache` (npz).

    In bfloat16, as training computes them; the chosen candidate is tested in full precision.
    """
    labels = torch.from_numpy(radiographs.labels)[pairs.images]
    if not cache.exists():
        values, rate = _forward(network, radiographs, pairs, seed)
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.with_suffix(".part").open("wb") as file:
            np.savez(file, values=values.numpy(), rate=rate)
        cache.with_suffix(".part").replace(cache)
    with np.load(cache) as stored:
        return Features(torch.from_numpy(stored["values"]), pairs, labels, float(stored["rate"]))


def _forward(
    network: GoogLeNet, radiographs: Radiographs, pairs: Pairs, seed: int
) -> tuple[Tensor, float]:
    """The features, and images/s by the median of the batches."""
    device = next(network.parameters()).device
    parts, durations = [], []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for start in tqdm(range(0, len(pairs), BATCH), "features", unit="batch", leave=False):
            began = time.perf_counter()
            tensors = made(radiographs, pairs[start : start + BATCH], seed, device)
            inputs = tensors.contiguous(memory_format=torch.channels_last)
            parts.append(network.features(inputs).float().cpu())
            durations.append(time.perf_counter() - began)
    return torch.cat(parts), min(BATCH, len(pairs)) / median(durations)


@dataclass(frozen=True)
class Head:
    """A trained classifier, its loss on validation features, and the features it saw."""

    layer: nn.Linear
    loss: float
    seen: int

    def pfi(self, values: Tensor) -> npt.NDArray[np.float32]:
        """(M, 1024) -> (M,)."""
        with torch.inference_mode():
            return self.layer(values).softmax(dim=1)[:, 1].numpy()  # type: ignore[no-any-return]  # torch's stub


def fit_head(
    radiographs: Radiographs, train: Features, validation: Features, options: Finetune, seed: int
) -> Head:
    """Train the classifier alone, on the CPU, keeping the strictly best epoch.

    Args:
        radiographs: What the features are of.
        train: What to train on.
        validation: What chooses the epoch.
        options: Epochs, rates, batch, and whether to draw by `sampling_weights`.
        seed: Equal seeds give equal weights.
    """
    rows = radiographs.rows_at(train.pairs.images.numpy())
    weights = sampling_weights(rows) if options.balance else None
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layer = nn.Linear(train.values.shape[1], 2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    batch = min(options.batch, len(train.values))
    steps = len(train.values) // batch
    optimizer = torch.optim.SGD(
        layer.parameters(), options.rate_fc, 0.9, weight_decay=options.weight_decay, nesterov=True
    )
    recipe = Recipe(0, options.rate_fc, options.frozen_decay_epochs * steps)
    schedule = recipe.schedule(optimizer)
    seen = options.frozen_epochs * steps * batch
    best = Head(layer, float("inf"), seen)
    for _ in range(options.frozen_epochs):
        for chosen in _order(len(train.values), steps, batch, weights, random):
            values = dropout(train.values[chosen], 0.4, options.drop)
            loss = cross_entropy(layer(values), train.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            schedule.step()
        score = balanced_loss(
            Head(layer, 0, seen).pfi(validation.values), validation.labels.numpy()
        )
        if score < best.loss:
            kept = nn.Linear(train.values.shape[1], 2)
            kept.load_state_dict(layer.state_dict())
            best = Head(kept, score, seen)
    return best


def _order(
    count: int,
    steps: int,
    batch: int,
    weights: npt.NDArray[np.float64] | None,
    random: torch.Generator,
) -> Tensor:
    """(steps, batch) positions of one epoch."""
    if weights is None:
        order = torch.randperm(count, generator=random)[: steps * batch]
    else:
        drawn = torch.from_numpy(weights)
        order = torch.multinomial(drawn, steps * batch, replacement=True, generator=random)
    return order.view(steps, batch)
