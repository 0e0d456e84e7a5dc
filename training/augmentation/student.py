"""Another look for the same picture: what a student must not go by.

A teacher that began with a million photographs knows shapes; a small student that sees the
radiographs of a few dozen patients finds brightness and texture first, which another hospital's
machines change. So those are made arbitrary: tone curves, shading, the texture of photographs.
Halves of whole ones are hidden, so that either half tells the view.

References:
    Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

MOST_OF_A_PHOTOGRAPH = 0.35  # in a blend; the radiograph stays recognisable


class Variation:
    """A source of random variants; all that it draws comes from `random`.

    Args:
        random: On the CPU.
        photographs: (P, 1, S, S) uint8, to blend in; none leaves that out.
    """

    def __init__(self, random: torch.Generator, photographs: Tensor) -> None:
        self.random, self.photographs = random, photographs

    def __call__(self, tensors: Tensor, whole: Tensor) -> Tensor:
        """(B, 1, S, S) of 0..255 -> the same, each varied by itself; the view stays.

        `whole` is (B,) bool: what may lose a half. Of a crop, too little might be left.
        """
        pictures = self._tone(self._move(tensors.float() / 255).clamp(0, 1))
        pictures = self._hide(self._blend(self._shade(pictures)), whole)
        strength = self._uniform(0, 0.06, len(pictures)) * self._chance(len(pictures), 0.3)
        noise = torch.randn(pictures.shape, generator=self.random)
        return (pictures + noise * strength).clamp(0, 1) * 255

    def _uniform(self, low: float, high: float, count: int, *shape: int) -> Tensor:
        noise = torch.rand(count, *(shape or (1, 1, 1)), generator=self.random)
        return low + (high - low) * noise

    def _chance(self, count: int, probability: float) -> Tensor:
        return self._uniform(0, 1, count) < probability

    def _move(self, pictures: Tensor) -> Tensor:
        """Moved, turned, zoomed and mirrored a little; another contrast and brightness."""
        count = len(pictures)
        zoom = torch.exp(self._uniform(-0.12, 0.12, count)).flatten()
        angle = torch.deg2rad(self._uniform(-7, 7, count)).flatten()
        mirror = 1 - 2 * self._chance(count, 0.5).flatten().float()
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        right, down = self._uniform(-0.08, 0.08, count, 2).T
        theta = torch.stack((cos * mirror, -sin, right, sin * mirror, cos, down), dim=1)
        grid = affine_grid(theta.view(count, 2, 3), list(pictures.shape), align_corners=False)
        moved = grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        return moved * self._uniform(0.85, 1.15, count) + self._uniform(-0.06, 0.06, count)

    def _tone(self, pictures: Tensor) -> Tensor:
        """Another tone curve: a power, or an S as a film has."""
        count = len(pictures)
        power = pictures.clamp(min=1e-4) ** torch.exp(self._uniform(-0.8, 0.8, count))
        slope, centre = self._uniform(3, 10, count), self._uniform(0.3, 0.7, count)
        low, high = torch.sigmoid(-slope * centre), torch.sigmoid(slope * (1 - centre))
        curve = (torch.sigmoid(slope * (pictures - centre)) - low) / (high - low)
        rest = torch.where(self._chance(count, 0.3), curve, pictures)
        return torch.where(self._chance(count, 0.35), power, rest)

    def _shade(self, pictures: Tensor) -> Tensor:
        """Slow gradients, multiplied and added."""
        count, size = len(pictures), pictures.shape[2:]
        gain = 1 + self._uniform(0, 0.6, count) * self._field(count, 4, size)
        offset = self._uniform(-0.3, 0.3, count) * self._field(count, 3, size)
        return torch.where(self._chance(count, 0.5), pictures * gain + offset, pictures)

    def _field(self, count: int, knots: int, size: torch.Size) -> Tensor:
        coarse = self._uniform(-1, 1, count, 1, knots, knots)
        return interpolate(coarse, size=size, mode="bicubic", align_corners=False)

    def _hide(self, pictures: Tensor, whole: Tensor) -> Tensor:
        """Half of the picture, more or less, is black or another grey."""
        count, side = len(pictures), pictures.shape[2]
        place = (torch.arange(side) + 0.5) / side
        hidden = (place < self._uniform(0.3, 0.55, count, 1))[:, None, :, None]
        hidden = torch.where(self._chance(count, 0.5), hidden, hidden.flip(2))
        hidden = torch.where(self._chance(count, 0.7), hidden, hidden.transpose(2, 3))
        level = self._uniform(0, 1, count) * self._chance(count, 0.4)
        hidden &= whole[:, None, None, None] & self._chance(count, 0.4)
        return torch.where(hidden, level, pictures)

    def _blend(self, pictures: Tensor) -> Tensor:
        """A photograph shines through."""
        count = len(pictures)
        if not len(self.photographs):
            return pictures
        drawn = torch.randint(len(self.photographs), (count,), generator=self.random)
        share = self._uniform(0, MOST_OF_A_PHOTOGRAPH, count) * self._chance(count, 0.4)
        return (1 - share) * pictures + share * self.photographs[drawn].float() / 255
