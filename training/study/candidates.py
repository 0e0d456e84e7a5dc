"""The nine candidates: three pre-trainings by three methods of fine-tuning."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.evaluate.metrics import Pfi, balanced_loss, proportion
from training.evaluate.torch_predictors import forward
from training.networks.googlenet import GoogLeNet, PfiNetwork, load_pretrained
from training.study.config import Study
from training.study.data import (
    ChildBatches,
    Pairs,
    Radiographs,
    made,
    pairs_of,
)
from training.study.frozen import BATCH, Features, features, fit_head, trunk
from training.study.pretrain import AUXILIARY_SIDES, Pretrained
from training.study.results import Candidate, Method
from training.train import processes
from training.train.fit import load_best
from training.train.loop import BEST, run_training
from training.train.trainer import Recipe, Trainer

CANDIDATE, VALIDATION = "candidate.json", "validation.npy"


@dataclass(frozen=True)
class Trained:
    """A candidate, where its best weights are, and their PFIs on the validation pairs."""

    found: Candidate
    loading_share: float
    folder: Path  # holds best.pt
    validation: Pfi  # of `validation_pairs`


def validation_pairs(study: Study, radiographs: Radiographs) -> Pairs:
    """The validation images and their children: what all candidates are judged on."""
    return pairs_of(radiographs.of("validation"), study.finetune.children, study.seed)


def train_candidate(
    study: Study, radiographs: Radiographs, pretrained: Pretrained, method: Method, run: Path
) -> Trained:
    """One candidate, trained now unless `run` holds it already.

    All processes call this; those beside the first help to train all layers, and else wait.
    """
    folder = run / f"{pretrained.kind}-{method}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CANDIDATE).exists():
        if method == "all-augmented":
            facts = _train_all(study, radiographs, pretrained, folder)
        elif processes.rank() == 0:
            facts = _train_head(study, radiographs, pretrained, method, folder)
        if processes.rank() == 0:
            _describe(
                study, radiographs, pretrained=pretrained, method=method, folder=folder, facts=facts
            )
        processes.wait()
    record = json.loads((folder / CANDIDATE).read_text())
    return Trained(
        Candidate.model_validate(record["found"]),
        record["loading_share"],
        folder,
        np.load(folder / VALIDATION),
    )


def _train_all(
    study: Study, radiographs: Radiographs, pretrained: Pretrained, folder: Path
) -> dict[str, Any]:
    options, device = study.finetune, processes.pick_device()
    torch.manual_seed(study.seed)
    size = radiographs.images.tensors.shape[-1]
    network = GoogLeNet(auxiliary=size in AUXILIARY_SIDES, drop=options.drop)
    load_pretrained(network, pretrained.weights)
    batches = ChildBatches(
        radiographs,
        radiographs.of("train"),
        batch=options.batch,
        epoch_images=options.epoch_images,
        balance=options.balance,
        seed=study.seed,
        device=device,
    )
    recipe = Recipe(
        steps=options.epochs * batches.steps,
        rate=options.rate_all,
        decay_steps=options.decay_epochs * batches.steps,
        weight_decay=options.weight_decay,
        seed=study.seed,
    )
    trainer = Trainer(network, batches, recipe, device)
    pairs = validation_pairs(study, radiographs)
    labels = radiographs.labels[pairs.images.numpy()]

    def judge(network: GoogLeNet) -> float:
        return balanced_loss(pfi_of(network, radiographs, pairs, study.seed, device), labels)

    run_training(trainer, judge, folder, batches.steps)
    seen = trainer.step * batches.count
    return {
        "training_images": seen,
        "seconds": trainer.seconds,
        "images_per_second": batches.count / trainer.step_seconds,
        "loading_share": trainer.loading_share,
    }


def cached_features(
    study: Study, radiographs: Radiographs, pretrained: Pretrained, cache: Path
) -> Features:
    """Features of every image, and of the children of those that train or validate."""
    pairs = pairs_of(np.arange(len(radiographs.rows)), study.finetune.children, study.seed)
    needed = (pairs.kinds == 0) | torch.from_numpy(np.array(radiographs.parts) != "test")[
        pairs.images
    ]
    pairs = pairs[needed]
    network = trunk(pretrained.weights)
    return features(network, radiographs, pairs, study.seed, cache / f"{pretrained.kind}.npz")


def _train_head(
    study: Study,
    radiographs: Radiographs,
    pretrained: Pretrained,
    method: Method,
    folder: Path,
) -> dict[str, Any]:
    every = cached_features(study, radiographs, pretrained, folder.parent / "features")
    train = every.of_images(radiographs.of("train"))
    if method == "fc-originals":
        train = train.originals()
    began = time.perf_counter()
    validation = every.of_images(radiographs.of("validation"))
    head = fit_head(radiographs, train, validation, study.finetune, study.seed)
    seconds = time.perf_counter() - began
    network = trunk(pretrained.weights)
    network.fc.load_state_dict(head.layer.state_dict())
    torch.save(network.state_dict(), folder / BEST)
    return {
        "training_images": head.seen,
        "seconds": seconds,
        "images_per_second": every.rate,
        "loading_share": 0.0,
    }


def _describe(
    study: Study,
    radiographs: Radiographs,
    *,
    pretrained: Pretrained,
    method: Method,
    folder: Path,
    facts: dict[str, Any],
) -> None:
    pairs, device = validation_pairs(study, radiographs), processes.pick_device()
    pfi = pfi_of(load_best(folder, device), radiographs, pairs, study.seed, device)
    np.save(folder / VALIDATION, pfi)
    labels = radiographs.labels[pairs.images.numpy()]
    right = (pfi >= 0.5) == labels
    own = (pairs.kinds == 0).numpy()
    share = facts.pop("loading_share")
    found = Candidate(
        name=f"{pretrained.kind}, {method}",
        pretraining=pretrained.kind,
        method=method,
        pretraining_images=pretrained.images,
        accuracy=proportion(int(right.sum()), len(right)),
        accuracy_originals=proportion(int(right[own].sum()), int(own.sum())),
        loss=balanced_loss(pfi, labels),
        **facts,
    )
    record = {"found": found.model_dump(), "loading_share": share}
    draft = folder / "candidate.part"
    draft.write_text(json.dumps(record, indent=1))
    draft.replace(folder / CANDIDATE)


def pfi_of(
    network: GoogLeNet, radiographs: Radiographs, pairs: Pairs, seed: int, device: torch.device
) -> Pfi:
    """(M,) PFI of children, in full precision."""
    starts = range(0, len(pairs), BATCH)
    children = (made(radiographs, pairs[at : at + BATCH], seed, device) for at in starts)
    return forward(PfiNetwork(network).eval(), children, len(starts))
