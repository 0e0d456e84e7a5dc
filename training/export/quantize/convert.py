"""From one form to another, and how far their answers lie apart."""

from __future__ import annotations

import random
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from model_store import AnsweredView
from training.augmentation.augment import Augmentation
from training.data.manifest import read_images
from training.evaluate.metrics import Pfi
from training.evaluate.onnx_predictors import predictor
from training.export.quantize.fp16 import to_fp16
from training.export.quantize.int8 import to_int8
from training.train.fit import validation_images
from training.train.settings import FitSettings, rows_of

Form = Literal["int8", "fp16"]
Tensors = npt.NDArray[np.uint8]

CALIBRATION = 16  # training images of each view that choose the integers' scales
COPIES = 3  # transformed copies of each


def convert(model: bytes, form: Form, settings: FitSettings) -> bytes:
    """An exported network in other numbers, calibrated on the training images of its run."""
    return to_fp16(model) if form == "fp16" else to_int8(model, calibration_images(settings))


def calibration_images(settings: FitSettings) -> Tensors:
    """Training images, as many of either view, and transformed copies of each; always the same.

    Returns:
        ((1 + COPIES) * images, 1, S, S) uint8; all training images of a view that has too few.
    """
    draw = random.Random(settings.seed)
    train = rows_of(settings, "train")
    rows = []
    for view in get_args(AnsweredView):  # not_chest occurs in runs of several heads only
        own = [row for row in train if row.view == view]
        rows += draw.sample(own, min(len(own), CALIBRATION))
    draw.shuffle(rows)
    plain = read_images(rows, settings.images, settings.spec).tensors
    parents = torch.from_numpy(read_images(rows, settings.images, settings.double_spec).tensors)
    augmentation = Augmentation(settings.seed + 2, settings.size)
    copies = [augmentation(parents).round().to(torch.uint8).numpy() for _ in range(COPIES)]
    return np.concatenate((plain, *copies))


def differences(parent: bytes, converted: bytes, settings: FitSettings) -> Pfi:
    """|PFI(converted) - PFI(parent)| on the validation images and their children."""
    images = validation_images(settings).tensors
    change: Pfi = np.abs(predictor(converted)(images) - predictor(parent)(images))
    return change
