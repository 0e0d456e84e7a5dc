"""How fast all layers train, and what making the batches costs.

    python benchmarks/train_step.py [--steps 20] [--batch 24 ...] [--size 256]

For each batch size one trainer takes children of made-up radiographs through forward, backward
and the optimiser. In the same run, on the same machine and at the same time of day, the reference
does so with one batch made beforehand: the ratio of both is what augmentation costs. On a GPU the
children are made there.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch
from torch import Tensor

from training.data.manifest import LabelledImages, Row
from training.networks.googlenet import GoogLeNet
from training.study.data import ChildBatches, Radiographs
from training.study.pretrain import AUXILIARY_SIDES
from training.train.processes import pick_device
from training.train.trainer import Batches, Recipe, Trainer

IMAGES = 64
WARM_UP = 3  # steps: kernels are chosen, memory is taken


class Made:
    """The reference: the same batch again and again, at no cost."""

    def __init__(self, batches: Batches) -> None:
        self.made = batches.batch(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch."""
        del step
        return self.made


def radiographs(size: int) -> Radiographs:
    """Smooth pictures, half of each view."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (IMAGES, 1, size // 16, size // 16)).astype(np.uint8)
    tensors = coarse.repeat(16, axis=2).repeat(16, axis=3)
    rows = tuple(
        Row(f"{i}", "frontal" if i % 2 else "lateral", f"p{i}", "made-up") for i in range(IMAGES)
    )
    return Radiographs(LabelledImages(rows, tensors), ("train",) * IMAGES)


def trainer_of(
    batches: Batches, size: int, steps: int, device: torch.device, *, autocast: bool = True
) -> Trainer:
    """A network from scratch; its speed does not depend on its weights."""
    torch.manual_seed(1)
    network = GoogLeNet(auxiliary=size in AUXILIARY_SIDES)
    recipe = Recipe(steps=steps, rate=1e-4, decay_steps=steps, autocast=autocast)
    return Trainer(network, batches, recipe, device)


def timed(trainers: list[Trainer], steps: int, device: torch.device) -> list[list[float]]:
    """Seconds of each step, the trainers taking turns."""
    found: list[list[float]] = [[] for _ in trainers]
    for step in range(WARM_UP + steps):
        for trainer, durations in zip(trainers, found, strict=True):
            began = time.perf_counter()
            trainer.train_step()
            torch.get_device_module(device).synchronize()
            if step >= WARM_UP:
                durations.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Print one line a batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs="+", default=[24])
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    device = pick_device()
    data = radiographs(options.size)
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"GoogLeNet, all layers, {options.size} pixels, bfloat16 autocast, {name}")
    print("| batch | images/s | with batches at no cost | ratio | n steps |\n|---|---|---|---|---|")
    for batch in options.batch:
        batches = ChildBatches(
            data,
            np.arange(IMAGES),
            batch=batch,
            epoch_images=None,
            balance=False,
            seed=1,
            device=device,
        )
        pair = [
            trainer_of(source, options.size, options.steps, device)
            for source in (batches, Made(batches))
        ]
        whole, alone = (median(each) for each in timed(pair, options.steps, device))
        print(
            f"| {batch} | {batch / whole:.1f} | {batch / alone:.1f} | {alone / whole:.3f} "
            f"| {options.steps} |"
        )


if __name__ == "__main__":
    main()
