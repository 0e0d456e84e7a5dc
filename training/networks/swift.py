"""Swift: a small separable network, whose answer costs less than decoding the image.

References:
    Howard et al., MobileNets, 2017 (depthwise separable convolutions); He et al., Deep Residual
    Learning, CVPR 2016 (shortcuts).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks.googlenet import MEAN, Logits

ARCHITECTURE = "Swift: separable convolutions with shortcuts"

SIDE = 128  # S of its input, in pixels: at 96, corners and halves were too coarse to tell
SPREAD = 60.0  # grey levels: about the standard deviation of windowed radiographs
STEM = 16  # channels at S/2
# (channels, stride) of each block: S/4, S/8, and S/16, where half a thorax still has four rows
BLOCKS = (
    *((32, 2), (48, 1)),
    *((80, 2), (80, 1), (80, 1)),
    *((144, 2), (144, 1), (144, 1), (144, 1), (144, 1), (224, 1)),
)
TEACHER_FEATURES = 1024  # of GoogLeNet's last pooled maps


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, a 1x1 across them; a shortcut where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.norm2(self.pointwise(self.norm1(self.depthwise(x))))
        return torch.relu(x + y if self.shortcut else y)


class Swift(nn.Module):
    """(B, 1, S, S) grey values 0..255 -> logits for lateral and frontal, for any S from 32 on.

    Args:
        classes: 2, or those of all heads.
        hint: While training, one auxiliary output guesses a teacher's features from its own.
    """

    def __init__(self, classes: int = 2, *, hint: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU()
        )
        widths = (STEM, *(channels for channels, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(
                Separable(inputs, outputs, stride)
                for inputs, (outputs, stride) in zip(widths, BLOCKS, strict=False)
            )
        )
        self.fc = nn.Linear(widths[-1], classes)
        self.hint = nn.Linear(widths[-1], TEACHER_FEATURES) if hint else None

    def maps(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 224, S/16, S/16), the last maps."""
        maps: Tensor = self.blocks(self.stem((x - MEAN) / SPREAD))
        return maps

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, 224), the globally averaged last maps."""
        return self.maps(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Logits:
        """(B, 1, S, S) of 0..255 -> logits."""
        features = self.features(x)
        guessed = (self.hint(features),) if self.hint is not None and self.training else ()
        return Logits(self.fc(features), guessed)
