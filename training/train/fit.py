"""Fine-tuning, start to end: data, steps, checkpoints, the best weights, the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model_store import Plateau
from training.augmentation.augment import Augmentation
from training.data.manifest import LabelledImages, read_and_check, read_images
from training.evaluate.cutoff import youden_plateau
from training.evaluate.metrics import balanced_loss, predict
from training.networks.googlenet import GoogLeNet, load_pretrained
from training.train.loop import BEST, run_training
from training.train.processes import pick_device
from training.train.sampling import RandomBatches
from training.train.settings import FitSettings, rows_of
from training.train.trainer import Net, Recipe, Trainer

AVERAGE_DECAY = 0.995  # the published weights are a running mean over about 200 steps
CUTOFF = "cutoff.json"


def fit(settings: FitSettings, run: Path) -> None:
    """Train, or go on where the last checkpoint ended; leave best.pt and cutoff.json in `run`.

    Raises:
        FloatingPointError: The loss is no longer a number.
        ManifestError, ValueError: The data or the settings cannot be used.
    """
    settings.save(run)
    read_and_check(settings.manifest, settings.images, settings.spec)
    train = read_images(rows_of(settings, "train"), settings.images, settings.double_spec)
    judge = Judge(validation_images(settings), pick_device())
    trainer = make_trainer(settings, train, pick_device())
    run_training(trainer, judge.loss, run, settings.check_every)
    network = load_best(run, pick_device())
    plateau = judge.plateau(network, f"validation images and {settings.children} children of each")
    (run / CUTOFF).write_text(plateau.model_dump_json(indent=2) + "\n")


def make_trainer(
    settings: FitSettings, train: LabelledImages, device: torch.device
) -> Trainer[GoogLeNet]:
    """A trainer at step 0 of a run; `train` holds tensors of twice the run's size."""
    torch.manual_seed(settings.seed)
    network = GoogLeNet()
    if settings.weights is not None:
        load_pretrained(network, settings.weights)
    recipe = Recipe(
        steps=settings.steps,
        rate=settings.rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        average_decay=AVERAGE_DECAY,
        seed=settings.seed,
    )
    batches = RandomBatches(
        train, size=settings.size, batch=settings.batch, seed=settings.seed, device=device
    )
    return Trainer(network, batches, recipe, device)


def load_best(run: Path, device: torch.device) -> GoogLeNet:
    """The best weights of a run, in evaluation mode."""
    return load_weights(GoogLeNet(), run, device)


def load_weights(network: Net, run: Path, device: torch.device) -> Net:
    """Fill a network with the best weights of a run, for evaluation."""
    network.load_state_dict(torch.load(run / BEST, map_location=device, weights_only=True))
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]  # torch's stub lacks this form


def validation_images(settings: FitSettings) -> LabelledImages:
    """The validation images and `settings.children` augmented copies of each, always the same."""
    rows = rows_of(settings, "validation")
    copies = [read_images(rows, settings.images, settings.spec).tensors]
    parents = torch.from_numpy(read_images(rows, settings.images, settings.double_spec).tensors)
    augmentation = Augmentation(settings.seed + 1, settings.size)
    for _ in range(settings.children):
        batches = [augmentation(batch) for batch in torch.split(parents, 64)]
        copies.append(torch.cat(batches).round().to(torch.uint8).numpy())
    return LabelledImages(tuple(rows) * len(copies), np.concatenate(copies))


@dataclass(frozen=True)
class Judge:
    """The validation images, and what weights are worth on them."""

    images: LabelledImages
    device: torch.device

    def loss(self, network: nn.Module) -> float:
        """Cross-entropy in which both views weigh the same, whatever their numbers."""
        pfi = predict(network, self.images.tensors, self.device)
        return balanced_loss(pfi, self.images.labels)

    def plateau(self, network: nn.Module, measured_on: str) -> Plateau:
        """Youden's plateau on these images."""
        pfi = predict(network, self.images.tensors, self.device)
        return youden_plateau(pfi, self.images.labels, measured_on)
