"""Surroundings in which radiographs are met: frames, films on a light box, screens, arms, low size.

Each leaves open what is asked of the image: the view, whether it is a chest radiograph, which way
is up, its polarity and its handedness.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

BEFORE = 0.12  # chance of each scene that belongs to the body or the beam
AFTER = 0.08  # chance of each scene that belongs to the picture of the film


class Scenes:
    """Random scenes; all that they draw comes from `random`.

    Args:
        random: On the device.
        device: Where the batches are.
    """

    def __init__(self, random: torch.Generator, device: torch.device) -> None:
        self.random, self.device = random, device

    def before_exposure(self, batch: Tensor) -> Tensor:
        """(B, 1, S, S) of 0..1 -> the same: arms across the chest, a collimated field."""
        batch = self._some(batch, BEFORE, self._arms)
        return self._some(batch, BEFORE, self._collimate)

    def after_exposure(self, batch: Tensor) -> Tensor:
        """(B, 1, S, S) of 0..1 -> the same: the finished picture, once more on its way."""
        batch = self._some(batch, AFTER, self._shrink)
        batch = self._some(batch, AFTER, self._flatten)
        batch = self._some(batch, AFTER, self._tilt)
        batch = self._some(batch, 2 * AFTER, self._frame)
        batch = self._some(batch, AFTER, self._plate)
        return self._some(batch, AFTER, self._screen).clamp(0, 1)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        noise = torch.rand(shape, generator=self.random, device=self.device)
        return low + (high - low) * noise

    def _some(self, batch: Tensor, chance: float, scene: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a scene to some of the images."""
        (chosen,) = torch.nonzero(self._uniform(0, 1, len(batch)) < chance, as_tuple=True)
        if len(chosen):
            batch = batch.clone()
            batch[chosen] = scene(batch[chosen])
        return batch

    def _places(self, side: int) -> tuple[Tensor, Tensor]:
        """(1, 1, S), (1, S, 1): x and y of the pixels' centres, -1..1."""
        at = (torch.arange(side, device=self.device) + 0.5) / side * 2 - 1
        return at[None, None, :], at[None, :, None]

    def _arms(self, batch: Tensor) -> Tensor:
        """One or two limbs: soft bright bars, brightest where bone is."""
        x, y = self._places(batch.shape[-1])
        for _ in range(2):
            angle = self._uniform(0, math.pi, len(batch), 1, 1)
            off = self._uniform(-0.7, 0.7, len(batch), 1, 1)
            width = self._uniform(0.08, 0.22, len(batch), 1, 1)
            across = (x * torch.cos(angle) + y * torch.sin(angle) - off) / width
            along = -x * torch.sin(angle) + y * torch.cos(angle)
            ends = torch.sigmoid(12 * (along - self._uniform(-1.5, 0.3, len(batch), 1, 1)))
            flesh = (1 - across**2).clamp(min=0).sqrt()
            bone = (1 - (3 * across) ** 2).clamp(min=0).sqrt()
            limb = ((0.6 * flesh + 0.4 * bone) * ends)[:, None]
            strength = self._uniform(0, 0.6, len(batch), 1, 1, 1)
            batch = batch + strength * limb * (1 - batch)
        return batch

    def _collimate(self, batch: Tensor) -> Tensor:
        """Outside a rotated rectangle, dark or bright."""
        x, y = self._places(batch.shape[-1])
        angle = torch.deg2rad(self._uniform(-25, 25, len(batch), 1, 1))
        right = (x * torch.cos(angle) + y * torch.sin(angle)).abs()
        down = (y * torch.cos(angle) - x * torch.sin(angle)).abs()
        wide, high = self._uniform(0.5, 1.1, 2, len(batch), 1, 1)
        outside = ((right > wide) | (down > high))[:, None]
        level = self._uniform(0, 1, len(batch), 1, 1, 1).round() * self._uniform(0.7, 1, 1, 1, 1, 1)
        return torch.where(outside, level, batch)

    def _shrink(self, batch: Tensor) -> Tensor:
        """An original of 48 to 128 pixels: blur alone must not tell anything."""
        side = int(self._uniform(48, 128, 1).item())
        small = interpolate(batch, size=(side, side), mode="area")
        return interpolate(small, size=batch.shape[2:], mode="bilinear", align_corners=False)

    def _flatten(self, batch: Tensor) -> Tensor:
        """A fifth to a half of the contrast, somewhere in the range."""
        share = self._uniform(0.15, 0.5, len(batch), 1, 1, 1)
        return batch * share + self._uniform(0, 1, len(batch), 1, 1, 1) * (1 - share)

    def _tilt(self, batch: Tensor) -> Tensor:
        """Seen obliquely: a perspective whose far side is smaller."""
        count, side = len(batch), batch.shape[-1]
        x, y = self._places(side)
        lean = self._uniform(-0.35, 0.35, 2, count, 1, 1)
        depth = 1 + lean[0] * x + lean[1] * y
        zoom = self._uniform(0.9, 1.25, count, 1, 1)
        grid = torch.stack((x * zoom / depth, y * zoom / depth), dim=3)
        return _sampled(batch, grid, self._uniform(0, 1, count, 1, 1, 1).round() * 0.9)

    def _frame(self, batch: Tensor) -> Tensor:
        """Made smaller, in a black, white or grey frame; at times much narrower than wide."""
        count = len(batch)
        both = self._uniform(1, 1.6, count)
        one = self._uniform(1, 1.5, count)
        upright = self._uniform(0, 1, count) < 0.5
        wide = both * torch.where(upright, one, torch.ones_like(one))
        high = both * torch.where(upright, torch.ones_like(one), one)
        slack = self._uniform(-0.5, 0.5, 2, count) * (torch.stack((wide, high)) - 1)
        zero = torch.zeros_like(wide)
        theta = torch.stack((wide, zero, slack[0], zero, high, slack[1]), dim=1).view(count, 2, 3)
        grid = affine_grid(theta, list(batch.shape), align_corners=False)
        level = self._uniform(0, 1, count, 1, 1, 1)
        level = torch.where(self._uniform(0, 1, count, 1, 1, 1) < 0.7, level.round(), level)
        return _sampled(batch, grid, level)

    def _plate(self, batch: Tensor) -> Tensor:
        """A strip of something else beside it, as the next film on a light box."""
        width = int(self._uniform(0.05, 0.25, 1).item() * batch.shape[-1])
        if not width:
            return batch
        strip = batch.roll(1, 0)[..., :width]
        batch = batch.clone()
        if self._uniform(0, 1, 1).item() < 0.5:
            batch[..., :width] = strip
        else:
            batch[..., -width:] = strip
        return batch

    def _screen(self, batch: Tensor) -> Tensor:
        """A photograph of a screen: moire, glare, uneven light."""
        count = len(batch)
        x, y = self._places(batch.shape[-1])
        waves = self._uniform(20, 110, 2, count, 1, 1) * self._uniform(-1, 1, 2, count, 1, 1).sign()
        moire = torch.sin(waves[0] * x + self._uniform(0, 6.3, count, 1, 1)) * torch.sin(
            waves[1] * y + self._uniform(0, 6.3, count, 1, 1)
        )
        centre = self._uniform(-1, 1, 2, count, 1, 1)
        spread = self._uniform(0.05, 0.4, count, 1, 1)
        glare = torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / spread)
        light = 1 + 0.3 * (
            self._uniform(-1, 1, count, 1, 1) * x + self._uniform(-1, 1, count, 1, 1) * y
        )
        strength = self._uniform(0, 0.12, count, 1, 1), self._uniform(0, 0.7, count, 1, 1)
        return batch * light[:, None] + (strength[0] * moire + strength[1] * glare)[:, None]


def _sampled(batch: Tensor, grid: Tensor, level: Tensor) -> Tensor:
    """Each pixel from where `grid` (B, S, S, 2) says; `level` (B, 1, 1, 1) outside the picture."""
    outside = (grid.abs() > 1).any(dim=3)[:, None]
    return torch.where(outside, level, grid_sample(batch, grid, align_corners=False))
