"""GoogLeNet (Inception v1) for one grey channel, with the paper's local response normalisation.

References:
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015; the BVLC Caffe model of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, dropout, max_pool2d

ARCHITECTURE = "GoogLeNet (Inception v1), one grey channel, local response normalisation"

# Caffe's colour means in the order of the pre-trained conv1: blue, green, red, of 0..255
CAFFE_MEANS = (104.0, 117.0, 123.0)
MEAN = sum(CAFFE_MEANS) / 3


class Logits(NamedTuple):
    """(B, 2) each, in the order lateral, frontal; the auxiliary heads' while training.

    In pre-training, (B, classes) of the photographs.
    """

    main: Tensor
    auxiliary: tuple[Tensor, ...] = ()


class LocalResponseNorm(nn.Module):
    """`x / (1 + 1e-4 / 5 * sum of squares of 5 neighbouring channels) ** 0.75`.

    Equal to `torch.nn.LocalResponseNorm(5)`, but written as a banded 1x1 convolution and two
    square roots: on a CPU, ONNX Runtime's own LRN takes more than half of the network's time.
    """

    band: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        index = torch.arange(channels)
        near = (index[:, None] - index[None, :]).abs() <= 2
        self.register_buffer("band", near.float()[:, :, None, None] * (1e-4 / 5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        scale = 1 + conv2d(x * x, self.band.to(x.dtype))
        root = torch.sqrt(scale)
        return x / (root * torch.sqrt(root))


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, 5x5 and a pooled projection."""

    def __init__(  # noqa: PLR0917  # in the order of the paper's Table 1
        self, inputs: int, b1: int, b3r: int, b3: int, b5r: int, b5: int, bp: int
    ) -> None:
        super().__init__()
        self.b1 = nn.Conv2d(inputs, b1, 1)
        self.b3r = nn.Conv2d(inputs, b3r, 1)
        self.b3 = nn.Conv2d(b3r, b3, 3, padding=1)
        self.b5r = nn.Conv2d(inputs, b5r, 1)
        self.b5 = nn.Conv2d(b5r, b5, 5, padding=2)
        self.bp = nn.Conv2d(inputs, bp, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, b1 + b3 + b5 + bp, H, W)."""
        branches = (
            self.b1(x),
            self.b3(self.b3r(x).relu()),
            self.b5(self.b5r(x).relu()),
            self.bp(max_pool2d(x, 3, stride=1, padding=1)),
        )
        return torch.cat(branches, dim=1).relu()


class AuxiliaryHead(nn.Module):
    """A classifier half-way up, which gives the lower layers a nearer teacher while training."""

    def __init__(self, inputs: int, classes: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.conv = nn.Conv2d(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 14..16, 14..16) -> (B, classes) logits."""
        pooled = self.conv(avg_pool2d(x, 5, stride=3)).relu().flatten(1)
        logits: Tensor = self.fc2(dropout(self.fc1(pooled).relu(), self.drop, self.training))
        return logits


class GoogLeNet(nn.Module):
    """(B, 1, S, S) grey values 0..255 -> logits for lateral and frontal, or of several heads.

    Args:
        classes: 2; those of all heads; in pre-training, those of the photographs.
        auxiliary: Train the two auxiliary heads as well; they need 224 <= S <= 256.
        drop: Drop out in training: 0.4 before the classifier, 0.7 in the auxiliary heads.
    """

    def __init__(self, classes: int = 2, *, auxiliary: bool = True, drop: bool = True) -> None:
        super().__init__()
        self.auxiliary, self.drop = auxiliary, 0.4 if drop else 0.0
        self.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3)
        self.norm1 = LocalResponseNorm(64)
        self.conv2r = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.norm2 = LocalResponseNorm(192)
        self.inc3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inc3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inc4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inc4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inc4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inc4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inc4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inc5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inc5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.fc = nn.Linear(1024, classes)
        self.aux1 = AuxiliaryHead(512, classes, 0.7 if drop else 0.0)
        self.aux2 = AuxiliaryHead(528, classes, 0.7 if drop else 0.0)
        self.aux1.requires_grad_(auxiliary)
        self.aux2.requires_grad_(auxiliary)
        _initialise(self)

    def stem(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 192, S/8, S/8)."""
        x = self.norm1(_pool(self.conv1(x - MEAN).relu()))
        x = self.norm2(self.conv2(self.conv2r(x).relu()).relu())
        return _pool(x)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, S, S) -> the maps that the two auxiliary heads and the last classifier see."""
        x = _pool(self.inc3b(self.inc3a(self.stem(x))))
        first = self.inc4a(x)
        second = self.inc4d(self.inc4c(self.inc4b(first)))
        last = self.inc5b(self.inc5a(_pool(self.inc4e(second))))
        return first, second, last

    def maps(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 1024, S/32, S/32), the last maps."""
        return self.stages(x)[2]

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 1024), the globally averaged last maps."""
        return self.maps(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Logits:
        """(B, 1, S, S) of 0..255 -> logits."""
        first, second, last = self.stages(x)
        main = self.fc(dropout(last.mean(dim=(2, 3)), self.drop, self.training))
        heads = self.training and self.auxiliary
        return Logits(main, (self.aux1(first), self.aux2(second)) if heads else ())


class PfiNetwork(nn.Module):
    """What is exported: uint8 in, PFI out; mean and softmax inside, so no caller can forget them.

    Args:
        network: The trained network: (B, 1, S, S) of 0..255 -> Logits.
        temperature: Logits are divided by it, above 0; see `training.evaluate.calibration`.
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("temperature", torch.tensor(temperature), persistent=False)

    def forward(self, tensors: Tensor) -> Tensor:
        """(B, 1, S, S) uint8 -> (B,) float32, the probability of a frontal image."""
        logits: Logits = self.network(tensors.float())
        return (logits.main / self.temperature).softmax(dim=1)[:, 1]


def load_pretrained(network: GoogLeNet, weights: Path) -> None:
    """Load the BVLC weights (npz, one array per layer), folding colour to grey.

    The three colour filters of conv1 are added up, and what their unequal means leave over is put
    into the bias: equal to feeding the grey channel three times, except at the zero-padded border.
    `fc` and the auxiliary heads stay fresh; the file's 1000-class `fc` is of no use here.

    Raises:
        ValueError: An array is missing or has another shape.
    """
    with np.load(weights) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    colour = arrays["conv1.weight"]
    if colour.shape[1] == 3:
        surplus = torch.tensor([MEAN - mean for mean in CAFFE_MEANS])
        per_channel = colour.sum(dim=(2, 3))
        arrays["conv1.bias"] = arrays["conv1.bias"] + (per_channel * surplus).sum(dim=1)
        arrays["conv1.weight"] = colour.sum(dim=1, keepdim=True)
    state = network.state_dict()
    for name, old in state.items():
        if name.startswith(("fc.", "aux")):
            continue
        new = arrays.get(name)
        if new is None or new.shape != old.shape:
            raise ValueError(f"{weights.name} has no {name} of shape {tuple(old.shape)}")
        state[name] = new
    network.load_state_dict(state)


def _pool(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=2, ceil_mode=True)


def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.0)
