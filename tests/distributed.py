"""Train a step as `torchrun` starts it: the program of test_two_processes_train_as_one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from training.data.manifest import LabelledImages, Row
from training.networks.googlenet import GoogLeNet
from training.study.data import ChildBatches, Radiographs
from training.train import processes
from training.train.loop import run_training
from training.train.trainer import Recipe, Trainer

STEPS = 1  # after more, a rounding error has turned over some maximum of a pool: no more law


def main() -> None:
    processes.join()
    random = np.random.default_rng(0)
    rows = tuple(Row(f"{i}", "frontal" if i % 2 else "lateral", f"p{i}", "a") for i in range(8))
    tensors = random.integers(0, 256, (8, 1, 64, 64)).astype(np.uint8)
    radiographs = Radiographs(LabelledImages(rows, tensors), ("train",) * 8)
    device = processes.pick_device()
    batches = ChildBatches(
        radiographs,
        np.arange(8),
        batch=8,
        epoch_images=8 * STEPS,
        balance=False,
        seed=1,
        device=device,
    )
    torch.manual_seed(1)
    network = GoogLeNet(auxiliary=False, drop=False)  # each process would drop other units
    recipe = Recipe(steps=STEPS, rate=0.001, decay_steps=9, autocast=False)  # rounds less
    trainer = Trainer(network, batches, recipe, device)
    run_training(trainer, lambda _: 1.0, Path(sys.argv[1]), STEPS)
    processes.leave()


if __name__ == "__main__":
    main()
