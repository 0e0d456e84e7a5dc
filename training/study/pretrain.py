"""The greyscale steps: the colour network trained on in all layers on grey photographs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from training.networks.googlenet import GoogLeNet, load_pretrained
from training.study.config import Pretrain, Study
from training.study.photographs import (
    Grey,
    PhotoBatches,
    Photograph,
    list_photographs,
    middle,
    read_photographs,
)
from training.study.results import Pretraining
from training.train import processes
from training.train.loop import run_training
from training.train.trainer import Recipe, Trainer

COLOUR_IMAGES = 1_281_167  # ILSVRC-2012's training set, which the colour weights have seen
WEIGHTS = "weights.npz"
AUXILIARY_SIDES = range(224, 257)  # pixels: the auxiliary heads need these maps


@dataclass(frozen=True)
class Pretrained:
    """Weights to fine-tune from, and how many photographs they have seen."""

    kind: Pretraining
    weights: Path
    images: int


def pretrain(study: Study, kind: Pretraining, run: Path) -> Pretrained:
    """Weights of one kind; trained now unless they are given or lie in `run` already.

    Raises:
        ManifestError: The photographs cannot be used.
        FloatingPointError: The loss is no longer a number.
    """
    if kind == "colour":
        return Pretrained(kind, study.data.weights, COLOUR_IMAGES)
    photos = list_photographs(study.data, subset=kind == "subset-greyscale")
    images = COLOUR_IMAGES + sum(not photo.validation for photo in photos)
    folder = run / "pretrain" / kind
    if not (folder / WEIGHTS).exists():
        _train(study, photos, folder, run / "cache")
    return Pretrained(kind, folder / WEIGHTS, images)


def _train(study: Study, photos: list[Photograph], folder: Path, cache: Path) -> None:
    options, device = study.pretrain, processes.pick_device()
    assert study.data.photographs is not None
    if processes.rank() == 0:
        cache.mkdir(parents=True, exist_ok=True)
        read_photographs(photos, study.data.photographs, options.size * 8 // 7, cache)
    processes.wait()  # the others take up what process 0 stored
    pictures = read_photographs(photos, study.data.photographs, options.size * 8 // 7, cache)
    classes = sorted({photo.label for photo in photos})
    labels = np.array([classes.index(photo.label) for photo in photos])
    held_out = np.array([photo.validation for photo in photos])
    batches = PhotoBatches(
        pictures,
        labels,
        np.flatnonzero(~held_out),
        size=options.size,
        batch=options.batch,
        epoch_images=options.epoch_images,
        seed=study.seed,
        device=device,
    )
    trainer = _trainer(study, len(classes), batches, device)
    crops = middle(pictures[held_out], options.size)

    def judge(network: GoogLeNet) -> float:
        loss, right = validate(network, crops, labels[held_out], device)
        with (folder / "validation.csv").open("a", newline="") as file:
            csv.writer(file).writerow((trainer.step, f"{loss:.5f}", f"{right:.5f}"))
        return loss

    run_training(trainer, judge, folder, batches.steps)
    if processes.rank() == 0:
        state = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)
        np.savez(folder / WEIGHTS, **{n: v.numpy() for n, v in state.items() if "aux" not in n})
    processes.wait()


def _trainer(
    study: Study, classes: int, batches: PhotoBatches, device: torch.device
) -> Trainer[GoogLeNet]:
    options: Pretrain = study.pretrain
    torch.manual_seed(study.seed)
    network = GoogLeNet(classes, auxiliary=options.size in AUXILIARY_SIDES)
    load_pretrained(network, study.data.weights)
    recipe = Recipe(
        steps=options.epochs * batches.steps,
        rate=options.rate,
        decay_steps=options.decay_epochs * batches.steps,
        weight_decay=options.weight_decay,
        seed=study.seed,
    )
    return Trainer(network, batches, recipe, device)


def validate(
    network: GoogLeNet, crops: Grey, labels: npt.NDArray[np.int64], device: torch.device
) -> tuple[float, float]:
    """Cross-entropy and top-1 accuracy of (N, S, S) photographs."""
    network.eval()
    loss = right = 0.0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(crops), 64):
            tensors = torch.from_numpy(crops[start : start + 64, None].copy()).to(device).float()
            truth = torch.from_numpy(labels[start : start + 64]).to(device)
            logits = network(tensors).main.float()
            loss += cross_entropy(logits, truth, reduction="sum").item()
            right += (logits.argmax(1) == truth).sum().item()
    return loss / len(crops), right / len(crops)
