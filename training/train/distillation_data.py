"""What a student learns from: pictures, and what its teacher makes of them.

Made once and kept, because the teacher is a hundred times the student's work. Besides transformed
radiographs there are photographs: on them a student can follow only if it has learnt the teacher's
function, not a handful of patients.

References:
    Hinton et al., Distilling the Knowledge in a Neural Network, 2015; Romero et al., FitNets,
    ICLR 2015 (features as hints); Beyer et al., Knowledge distillation: a good teacher is patient
    and consistent, CVPR 2022 (teacher and student see the same crop, for long).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import (
    cross_entropy,
    interpolate,
    kl_div,
    log_softmax,
    mse_loss,
    softmax,
)
from tqdm import tqdm

from training.augmentation.student import Variation
from training.data.manifest import ManifestError, image_reader
from training.networks.googlenet import GoogLeNet, Logits
from training.train.trainer import step_seed

BATCH = 48  # pictures that the teacher sees at once
NO_LABEL = -1  # of a photograph
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")
SOFTNESS = 3.0  # the temperature at which logits are compared
ORIGINALS_SHARE = 0.3  # of what a student is shown: radiographs as they are, before it varies them
LEAST_SPREAD = 0.05  # of a feature, so that one that is always 0 does not become noise


class Originals(NamedTuple):
    """The training images, as the student and as the teacher would be served them."""

    tensors: npt.NDArray[np.uint8]  # (M, 1, S, S)
    of_teacher: npt.NDArray[np.uint8]  # (M, 1, T, T)
    labels: npt.NDArray[np.int64]  # (M,) of 0 lateral, 1 frontal
    weights: npt.NDArray[np.float64]  # (M,) probabilities, which sum to 1


@dataclass(frozen=True)
class TransferSet:
    """N pictures for the student, and the teacher's answers to them.

    `tensors` is (N, 1, S, S) uint8; `labels` (N,) int64 of 0 lateral, 1 frontal and NO_LABEL;
    `logits` (N, 2) float32; `features` (N, 1024) float16; `weights` (N,) float64, how often each is
    to be drawn; `whole` (N,) bool, the radiographs as they are.
    """

    tensors: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float64]
    whole: npt.NDArray[np.bool_]

    def save(self, file: Path) -> None:
        """Write an npz file, whole or not at all."""
        draft = file.with_suffix(".part.npz")
        np.savez(draft, **vars(self))
        draft.replace(file)

    @classmethod
    def load(cls, file: Path) -> TransferSet:
        """Read what `save` wrote."""
        with np.load(file) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


def make_transfer_set(
    teacher: GoogLeNet,
    originals: Originals,
    children: Iterator[tuple[Tensor, Tensor]],
    photographs: Iterator[Tensor],
    size: int,
) -> TransferSet:
    """Show the teacher the radiographs as they are, transformed ones, then photographs.

    Args:
        teacher: In evaluation mode.
        originals: The training images.
        children: (B, 1, T, T) float32 of 0..255 each, T the teacher's size, and (B,) labels.
        photographs: (B, 1, T, T) float32 of 0..255 each.
        size: S, of the student.
    """
    plain = zip(*(torch.split(torch.from_numpy(a), BATCH) for a in originals[:3]), strict=True)
    parts = [(small, known, *_teach(teacher, large.float())) for small, large, known in plain]
    others = chain(children, ((each, torch.full((len(each),), NO_LABEL)) for each in photographs))
    for tensors, known in tqdm(others, "teach", unit="batch"):
        small = interpolate(tensors, size=(size, size), mode="area").round().clamp(0, 255)
        parts.append((small.to(torch.uint8).cpu(), known.cpu(), *_teach(teacher, tensors)))
    seen, labels, logits, features = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    rest = len(seen) - len(originals.weights)
    drawn = originals.weights * (ORIGINALS_SHARE / (1 - ORIGINALS_SHARE) * rest)
    weights = np.concatenate((drawn, np.ones(rest)))
    whole = np.arange(len(seen)) < len(drawn)
    return TransferSet(seen, labels, logits, features, weights, whole)


def photographs(images: Path, count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Up to `count` photographs of a zip or folder, drawn at random.

    Yields:
        (B, 1, size, size) float32 of 0..255.

    Raises:
        ManifestError: `images` is neither a zip nor a folder, or holds none.
    """
    read, names = image_reader(images), _photograph_names(images)
    if not names:
        raise ManifestError(f"{images} holds no photographs ({', '.join(PHOTOGRAPHS)})")
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    for part in np.array_split(drawn, -(-len(drawn) // BATCH)):
        pictures = [Image.open(io.BytesIO(read(names[index]))).convert("L") for index in part]
        squares = [
            np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in pictures
        ]
        yield torch.from_numpy(np.stack(squares)[:, np.newaxis]).float()


class TransferBatches:
    """Batches of a transfer set, each picture varied once more.

    Args:
        data: What the teacher was shown, and its answers.
        batch: Pictures of one step.
        seed: Equal seeds give equal batches.
    """

    def __init__(self, data: TransferSet, *, batch: int, seed: int, device: torch.device) -> None:
        self.tensors = torch.from_numpy(data.tensors)
        features = torch.from_numpy(data.features).float()
        hints = (features - features.mean(0)) / (features.std(0) + LEAST_SPREAD)
        labels, logits = torch.from_numpy(data.labels), torch.from_numpy(data.logits)
        self.targets = torch.cat((labels[:, None].float(), logits, hints), dim=1)
        self.photographs = self.tensors[labels == NO_LABEL]
        self.weights, self.whole = torch.from_numpy(data.weights), torch.from_numpy(data.whole)
        self.count, self.seed, self.device = batch, seed, device

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(B, 1, S, S) float32 of 0..255, and (B, 3 + F): label, the teacher's logits, hints."""
        random = torch.Generator().manual_seed(step_seed(self.seed, step))
        picked = torch.multinomial(self.weights, self.count, replacement=True, generator=random)
        tensors = Variation(random, self.photographs)(self.tensors[picked], self.whole[picked])
        return tensors.to(self.device), self.targets[picked].to(self.device)


def distillation_loss(logits: Logits, targets: Tensor, smoothing: float) -> Tensor:
    """How far a student is from its teacher's logits and features, and from the labels.

    Args:
        logits: The student's, with its guess of the features.
        targets: Of `TransferBatches`; photographs have no label, and add nothing for it.
        smoothing: Of the labels.
    """
    labels, taught, hints = targets[:, 0].long(), targets[:, 1:3], targets[:, 3:]
    main, (guess,) = logits.main.float(), logits.auxiliary
    soft = kl_div(
        log_softmax(main / SOFTNESS, 1), softmax(taught / SOFTNESS, 1), reduction="batchmean"
    )
    # the sum over labelled pictures, so that a batch without any is no division by nothing
    hard = cross_entropy(
        main, labels, ignore_index=NO_LABEL, label_smoothing=smoothing, reduction="sum"
    )
    return SOFTNESS**2 * soft + hard / len(labels) + mse_loss(guess.float(), hints)


def _teach(teacher: GoogLeNet, tensors: Tensor) -> tuple[Tensor, Tensor]:
    device = next(teacher.parameters()).device
    inputs = tensors.to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        features = teacher.features(inputs).float()
    with torch.inference_mode():
        return teacher.fc(features).cpu(), features.half().cpu()


def _photograph_names(images: Path) -> list[str]:
    if images.is_dir():
        names = [str(file.relative_to(images)) for file in images.rglob("*")]
    else:
        with zipfile.ZipFile(images) as archive:
            names = archive.namelist()
    return sorted(name for name in names if name.lower().endswith(PHOTOGRAPHS))
