"""A trained run, whichever command trained it: its data, its network, and what to call that."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from training.evaluate.heads import PredictHeads
from training.evaluate.metrics import Predict
from training.evaluate.torch_predictors import predict, predict_heads
from training.networks import swift
from training.train import distil
from training.train.fit import ARCHITECTURES, load_weights, network_of
from training.train.settings import FitSettings


class FinishedRun(NamedTuple):
    """What testing and publishing need to know of a run."""

    settings: FitSettings  # its split and data, at its network's size
    network: nn.Module  # in evaluation mode: (B, 1, S, S) of 0..255 -> Logits
    architecture: str  # for the card
    is_student: bool
    device: torch.device

    @property
    def predict(self) -> Predict:
        """(N, 1, S, S) uint8 -> (N,) PFI."""
        if self.settings.heads:
            return lambda tensors: self.predict_heads(tensors)["pfi"]
        return lambda tensors: predict(self.network, tensors, self.device)

    @property
    def predict_heads(self) -> PredictHeads:
        """(N, 1, S, S) uint8 -> the probabilities of all heads, of a run that has several."""
        return partial(predict_heads, self.network, self.settings.heads, device=self.device)


def open_run(run: Path, device: torch.device) -> FinishedRun:
    """Read the best weights of a run of `fit` or of `distil`."""
    if (run / distil.SETTINGS).exists():
        settings = distil.DistilSettings.load(run).of_student
        network: nn.Module = load_weights(swift.Swift(), run, device)
        return FinishedRun(
            settings,
            network,
            f"{swift.ARCHITECTURE}, distilled from GoogLeNet",
            is_student=True,
            device=device,
        )
    settings = FitSettings.load(run)
    network = load_weights(network_of(settings), run, device)
    architecture = ARCHITECTURES[settings.network]
    return FinishedRun(settings, network, architecture, is_student=False, device=device)
