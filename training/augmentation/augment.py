"""Random views of a radiograph, on the fly and on the device where training runs.

What a radiograph may meet on its way is sampled here: reflections, rotation, translation, zoom,
crops, shear and squash; another window, gamma, noise, blur and polarity; hidden parts and text.
Each transformation leaves the view what it was.
"""

from __future__ import annotations

import math
import random
import string
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from training.augmentation.scenes import Scenes

MARKS = 128  # rendered once; each use is moved, scaled and dimmed at random
MARK_SIDE = 96  # pixels
NEAR_QUARTER = 30.0  # degrees; farther from a quarter turn, which way is up cannot be asked
LEAST_SIDE = 0.75  # share of the image's side; handedness is not asked of smaller crops
UNKNOWN = -1


class Chances(NamedTuple):
    """How often an image is turned, inverted and cut; the rest is turned by a few degrees."""

    free: float = 0.25  # by up to 60 degrees
    quarter: float = 0.25  # by 0, 90, 180 or 270 degrees
    inverted: float = 0.12
    half: float = 0.0  # cut to its upper, lower, left or right half, or to a corner


USUAL = Chances()
# Where turning and inversion are also asked of the network
ASKED = Chances(free=0.2, quarter=0.5, inverted=0.3, half=0.25)


class Varied(NamedTuple):
    """A transformed batch, and how its images now lie; `inverted` is 0 or 1."""

    tensors: Tensor  # (B, 1, S, S) float32 of 0..255
    quarters: Tensor  # (B,) int64: quarter turns clockwise to upright, 0..3, or UNKNOWN
    mirrored: Tensor  # (B,) int64: 0 or 1, or UNKNOWN where half of the image is hidden or cut off
    inverted: Tensor  # (B,) int64


class Augmentation:
    """A seeded source of transformed batches; its state can be saved and restored.

    Args:
        seed: Equal seeds give equal sequences of batches.
        size: S of the batches that come out. Put in tensors of twice the size, so that a crop is
            as sharp as that of a file: enlarged from S, it would teach that crops are blurred.
        device: Where the batches are and stay.
        chances: How often images are turned and inverted.
        scenes: Also show images in the surroundings of `training.augmentation.scenes`.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        device: torch.device | str = "cpu",
        *,
        chances: Chances = USUAL,
        scenes: bool = False,
    ) -> None:
        self.chances = chances
        self.size = size
        self.random = torch.Generator(device)
        self.random.manual_seed(seed)
        self.device = torch.device(device)
        self.marks = torch.from_numpy(render_marks(seed)).to(self.device)
        self.scenes = Scenes(self.random, self.device) if scenes else None

    def __call__(self, tensors: Tensor) -> Tensor:
        """(B, 1, 2 S, 2 S) uint8 -> (B, 1, S, S) float32 of 0..255, each transformed by itself."""
        return self.vary(tensors).tensors

    def vary(self, tensors: Tensor) -> Varied:
        """As a call, with what was done to each image."""
        batch = tensors.to(self.device).float() / 255
        batch, quarters, mirrored = self._move(batch)
        if self.scenes:
            batch = self.scenes.before_exposure(batch)
        batch = self._expose(batch)
        batch, is_halved = self._hide(batch)
        mirrored = torch.where(is_halved, UNKNOWN, mirrored)
        batch = self._write(batch)
        batch = self._degrade(batch)
        inverted = self._chance(len(batch), self.chances.inverted)
        batch = torch.where(inverted, 1 - batch, batch).clamp(0, 1)
        if self.scenes:
            batch = self.scenes.after_exposure(batch)
        return Varied(batch * 255, quarters, mirrored, inverted.flatten().long())

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        noise = torch.rand(shape, generator=self.random, device=self.device)
        return low + (high - low) * noise

    def _chance(self, count: int, probability: float) -> Tensor:
        return self._uniform(0, 1, count, 1, 1, 1) < probability

    def _expose(self, batch: Tensor) -> Tensor:
        """The window of the picture as it now is, or another one; then another gamma."""
        count = len(batch)
        # as a file of just this part would be windowed; every fourth pixel is enough to see how
        sample = batch[:, :, ::4, ::4].flatten(1)
        ends = torch.quantile(sample, torch.tensor([0.005, 0.995], device=self.device), dim=1)
        lowest, highest = ends.view(2, count, 1, 1, 1)
        windowed = (batch - lowest) / (highest - lowest).clamp(min=0.02)
        batch = torch.where(self._chance(count, 0.6), windowed.clamp(0, 1), batch)
        low = self._uniform(-0.25, 0.25, count, 1, 1, 1)
        high = self._uniform(0.7, 1.6, count, 1, 1, 1)
        gamma = torch.exp(self._uniform(-0.7, 0.7, count, 1, 1, 1))
        exposed = ((batch - low) / (high - low)).clamp(0, 1).clamp(min=1e-6) ** gamma
        return torch.where(self._chance(count, 0.8), exposed, batch)

    def _move(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One affine transformation: each output pixel asks the input where it came from.

        Returns:
            The batch, and `quarters` and `mirrored` of `Varied`.
        """
        count = len(batch)
        likely = self.chances
        chance = self._uniform(0, 1, count)
        free = self._uniform(-60, 60, count)
        quarter = 90 * torch.floor(self._uniform(0, 4, count))
        small = self._uniform(-8, 8, count)
        degrees = torch.where(
            chance < likely.free,
            free,
            torch.where(chance < likely.free + likely.quarter, quarter, small),
        )
        angle = torch.deg2rad(degrees)
        side = torch.where(
            self._uniform(0, 1, count) < 0.45,
            self._uniform(0.42, 0.85, count),  # a crop
            torch.exp(self._uniform(-0.2, 0.25, count)),  # some zoom, in or out
        )
        stretch = torch.exp(self._uniform(-0.22, 0.22, count))
        width, height = side * stretch, side / stretch
        mirror = 1 - 2 * (self._uniform(0, 1, count) < 0.5).float()
        flip = 1 - 2 * (self._uniform(0, 1, count) < 0.15).float()
        shear = self._uniform(-0.12, 0.12, count)
        # a crop may lie anywhere within the image; a whole image moves a little
        reach = (1 - side).clamp(min=0) + 0.1
        shift = self._uniform(-1, 1, 2, count) * reach
        if likely.half:
            chosen, cut, centre = self._half(angle)
            side = torch.where(chosen, cut.amin(dim=0), side)
            width, height = torch.where(chosen, cut, torch.stack((width, height)))
            shift = torch.where(chosen, centre, shift)
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = (cos * width * mirror, (shear * cos - sin) * height * flip)
        columns = (sin * width * mirror, (shear * sin + cos) * height * flip)
        theta = torch.stack((*rows, shift[0], *columns, shift[1]), dim=1).view(count, 2, 3)
        grid = affine_grid(theta, [count, 1, self.size, self.size], align_corners=False)
        dark = grid_sample(batch, grid, padding_mode="zeros", align_corners=False)
        edge = grid_sample(batch, grid, padding_mode="border", align_corners=False)
        moved = torch.where(self._chance(count, 0.6), dark, edge)
        quarters, mirrored = orientation_of(degrees, mirror, flip)
        return moved, quarters, torch.where(side >= LEAST_SIDE, mirrored, UNKNOWN)

    def _half(self, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The upper, lower, left or right half of an image, or a corner; a little more or less.

        Args:
            angle: (B,) radians that the images are turned by.

        Returns:
            (B,) bool, which images are cut; (2, B) width and height, 1: the whole image; (2, B)
            where the centre lies, -1..1.
        """
        count = len(angle)
        chosen = self._uniform(0, 1, count) < self.chances.half
        share = self._uniform(0.45, 0.6, count)
        kind = torch.floor(self._uniform(0, 3, count))  # 0: a corner, 1: left, right, 2: up, down
        cut = torch.stack((torch.where(kind == 2, 1, share), torch.where(kind == 1, 1, share)))
        x, y = self._uniform(-1, 1, 2, count).sign() * (1 - cut)
        cos, sin = torch.cos(angle), torch.sin(angle)
        return chosen, cut, torch.stack((cos * x - sin * y, sin * x + cos * y))

    def _hide(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """A black, white, grey or noisy rectangle: a shield, a lost tile, half an image.

        Returns:
            The batch, and (B,) bool: half of the image is hidden.
        """
        count, _, rows, columns = batch.shape
        ratio = torch.exp(self._uniform(-1.2, 1.2, count))
        area = self._uniform(0.02, 0.5, count)
        height, width = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        half = self._uniform(0, 1, count) < 0.35  # hide the top, bottom, left or right half
        lying = self._uniform(0, 1, count) < 0.5
        depth = self._uniform(0.3, 0.55, count)
        height = torch.where(half, torch.where(lying, depth, 1.0), height)
        width = torch.where(half, torch.where(lying, 1.0, depth), width)
        place = self._uniform(0, 1, 2, count)
        place = torch.where(half, place.round(), place)
        top, left = place[0] * (1 - height), place[1] * (1 - width)
        y = torch.linspace(0, 1, rows, device=self.device)[None, :, None]
        x = torch.linspace(0, 1, columns, device=self.device)[None, None, :]
        within_rows = (y >= top[:, None, None]) & (y <= (top + height)[:, None, None])
        within_columns = (x >= left[:, None, None]) & (x <= (left + width)[:, None, None])
        inside = within_rows & within_columns
        level = self._uniform(0, 1, count, 1, 1, 1)
        level = torch.where(self._chance(count, 0.6), 0.0, level)
        grain = self._uniform(-0.5, 0.5, *batch.shape) * self._chance(count, 0.15)
        hidden = torch.where(inside[:, None], (level + grain).clamp(0, 1), batch)
        chosen = self._chance(count, 0.4)
        return torch.where(chosen, hidden, batch), half & chosen.flatten()

    def _write(self, batch: Tensor) -> Tensor:
        """Side markers, names and arrows, bright or dark, at any angle and place."""
        count, _, rows, columns = batch.shape
        index = torch.randint(MARKS, (count,), generator=self.random, device=self.device)
        scale = torch.exp(self._uniform(-0.2, 1.4, count)) * rows / MARK_SIDE
        angle = torch.deg2rad(self._uniform(-20, 20, count))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        shift = self._uniform(-1, 1, 2, count) * scale
        theta = torch.stack((cos, -sin, shift[0], sin, cos, shift[1]), dim=1).view(count, 2, 3)
        grid = affine_grid(theta, [count, 1, rows, columns], align_corners=False)
        ink = grid_sample(self.marks[index], grid, align_corners=False)
        level = self._uniform(0, 1, count, 1, 1, 1).round()
        opacity = self._uniform(0.5, 1, count, 1, 1, 1) * self._chance(count, 0.4)
        return batch + ink * opacity * (level - batch)

    def _degrade(self, batch: Tensor) -> Tensor:
        """Blur of two kinds, then noise."""
        count = len(batch)
        smooth = avg_pool2d(batch, 3, stride=1, padding=1, count_include_pad=False)
        batch = torch.where(self._chance(count, 0.15), smooth, batch)
        coarse = interpolate(batch, scale_factor=0.4, mode="area")
        coarse = interpolate(coarse, size=batch.shape[2:], mode="bilinear", align_corners=False)
        batch = torch.where(self._chance(count, 0.1), coarse, batch)
        noise = torch.randn(batch.shape, generator=self.random, device=self.device)
        strength = self._uniform(0, 0.08, count, 1, 1, 1) * self._chance(count, 0.4)
        return batch + noise * strength


def orientation_of(degrees: Tensor, mirror: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """How an image lies that was turned and then reflected.

    Args:
        degrees: (B,) turned counter-clockwise.
        mirror: (B,) of -1 and 1; -1: left and right were swapped afterwards.
        flip: (B,) of -1 and 1; -1: top and bottom were swapped afterwards.

    Returns:
        (B,) int64 quarter turns clockwise to upright, or UNKNOWN; (B,) int64 0 or 1, mirrored: left
        and right are swapped once it stands upright.
    """
    # To swap top and bottom is to swap left and right, and to turn by 180 degrees. A turn before a
    # reflection is the opposite turn after it
    clockwise = mirror * flip * degrees + 180 * (flip < 0)
    nearest = torch.round(clockwise / 90)
    near = (clockwise - 90 * nearest).abs() <= NEAR_QUARTER
    quarters = torch.where(near, nearest.remainder(4), torch.full_like(nearest, UNKNOWN))
    return quarters.long(), (mirror * flip < 0).long()


def render_marks(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Draw (MARKS, 1, MARK_SIDE, MARK_SIDE) float32 in 0..1: letters, words, plates and arrows."""
    chooser = random.Random(seed)
    marks = np.zeros((MARKS, 1, MARK_SIDE, MARK_SIDE), dtype=np.float32)
    for mark in marks:
        image = Image.new("L", (MARK_SIDE, MARK_SIDE))
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(size=chooser.choice((14, 18, 24, 36, 60)))
        letters = chooser.choices(string.ascii_uppercase + string.digits + " .:-/", k=12)
        text = "".join(letters[: chooser.choice((1, 1, 3, 7, 12))])
        centre = (MARK_SIDE / 2, MARK_SIDE / 2)
        if chooser.random() < 0.25:  # a plate: a bright box with dark letters
            left, top, right, bottom = draw.textbbox(centre, text, font, anchor="mm")
            draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=255)
            draw.text(centre, text, 0, font, anchor="mm")
        elif chooser.random() < 0.15:
            turn = chooser.uniform(0, 2 * math.pi)
            tip = (centre[0] + 36 * math.cos(turn), centre[1] + 36 * math.sin(turn))
            draw.line((*centre, *tip), fill=255, width=5)
            draw.regular_polygon((*tip, 10), 3, math.degrees(-turn) - 90, fill=255)
        else:
            draw.text(centre, text, 255, font, anchor="mm")
        mark[0] = np.asarray(image, dtype=np.float32) / 255
    return marks
