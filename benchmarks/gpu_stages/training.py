"""Training steps by batch size and precision, the loader's share, and the children of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train_step
from bench import middle, rounded

from gpu_stages.plan import Plan, TrainedStep
from gpu_stages.record import Found, Record
from training.augmentation.augmented_views import CHILDREN, children
from training.networks.googlenet import GoogLeNet
from training.study.data import ChildBatches
from training.train.trainer import Batches, Trainer

PRECISIONS = {"fp32": "highest", "tf32": "high", "bf16": "high"}  # of matrix products in float32


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """The children first: training on other images would be another training."""
    del data
    record.part("children", lambda: _children(plan))
    for step in plan.steps:
        record.part(step.name, partial(_steps, plan, step))


def _children(plan: Plan) -> Found:
    """All children of some images, on the device and on the CPU.

    Raises:
        RuntimeError: Pixels differ.
    """
    count = plan.children_images
    tensors = torch.from_numpy(train_step.radiographs(plan.training_side).images.tensors[:count])
    images = torch.arange(count).repeat_interleave(len(CHILDREN))
    kinds = torch.arange(len(CHILDREN)).repeat(count)
    known = children(tensors[images], images, kinds, 1)
    device = torch.device(plan.device)
    places = images.to(device)
    found = children(tensors.to(device)[places], places, kinds.to(device), 1).cpu()
    different = int((found != known).flatten(1).any(dim=1).sum())
    if different:
        raise RuntimeError(f"{different} of {len(kinds)} children differ from the CPU's")
    return {"children": len(kinds), "equal": True}


def _steps(plan: Plan, step: TrainedStep) -> Found:
    """With batches made as in the study, and with one batch at no cost, in turn."""
    device = torch.device(plan.device)
    torch.set_float32_matmul_precision(PRECISIONS[step.precision])
    torch.backends.cudnn.allow_tf32 = step.precision != "fp32"
    batches = ChildBatches(
        train_step.radiographs(plan.training_side),
        np.arange(train_step.IMAGES),
        batch=step.batch,
        epoch_images=None,
        balance=False,
        seed=1,
        device=device,
    )
    pair = [_trainer(plan, step, each) for each in (batches, train_step.Made(batches))]
    whole, alone = (middle(each) for each in train_step.timed(pair, plan.timed_steps, device))
    return {
        "images_s": rounded(step.batch / whole),
        "images_s_without_loader": rounded(step.batch / alone),
        "loader_share": rounded(max(0.0, 1 - alone / whole)),
        "steps": plan.timed_steps,
    }


def _trainer(plan: Plan, step: TrainedStep, batches: Batches) -> Trainer[GoogLeNet]:
    trainer = train_step.trainer_of(
        batches,
        plan.training_side,
        plan.timed_steps + train_step.WARM_UP,
        torch.device(plan.device),
        autocast=step.precision == "bf16",
    )
    if step.compiled:
        options: dict[str, Any] = dict(plan.compiler)
        trainer.network.compile(**options)
    return trainer
