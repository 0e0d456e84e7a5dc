"""The 106 children of an image: the paper's offline augmentation, enumerated.

The paper names the operations and their number, not the list. Here it is the 8 orientations of a
square times 13 appearances, and two medians of the image as it is: 8 * 13 + 2 = 106. The first
child is the image itself. All children keep the image's view.

Nothing is stored and nothing is drawn in turn: what a child looks like follows from the pixels, the
image's number, the child's and the seed, whatever batch, order, process or device it is made in.
So the arithmetic is of integers: coordinates in fixed point, random numbers by hashing.

References:
    Rajkomar et al., High-Throughput Classification of Radiographs Using Deep Convolutional Neural
    Networks, J Digit Imaging 2017;30:95-101: reflection, rotation, translation, pixel spread,
    noise and median noise reduction with neighbourhoods of 2 and 5 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.augmentation.medians import median_2x2, median_5x5
from training.augmentation.randomness import bits, keys, normal_table

SPREAD = 3  # pixels: each is taken from the square of 2 * 3 + 1 pixels around it
NOISE = 10.0  # standard deviation in grey levels of 255
FIXED = 16  # bits after the point of a coordinate
WEIGHT = 8  # bits of a bilinear weight

# Where the pixel at (x, y) from the centre, y downwards, is taken from: (a x + b y, c x + d y)
ORIENTATIONS: dict[str, tuple[int, int, int, int]] = {
    "as it is": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "mirrored and upside down": (-1, 0, 0, -1),
    "turned by 90 degrees": (0, -1, 1, 0),  # anticlockwise
    "turned by 90 degrees, mirrored": (0, -1, -1, 0),
    "turned by 90 degrees, upside down": (0, 1, 1, 0),
    "turned by 90 degrees, mirrored and upside down": (0, 1, -1, 0),
}
SHIFTS = {  # pixels right, pixels down
    "right": (3, 0),
    "right and down": (3, 3),
    "down": (0, 3),
    "left and down": (-3, 3),
    "left": (-3, 0),
    "left and up": (-3, -3),
    "up": (0, -3),
    "right and up": (3, -3),
}


@dataclass(frozen=True)
class Child:
    """One way to transform an image: oriented, then changed by at most one operation."""

    orientation: str = "as it is"
    appearance: str = "unchanged"
    degrees: float = 0  # anticlockwise about the centre; bilinear, black moves in
    shift: tuple[int, int] = (0, 0)  # pixels right and down; black moves in
    spread: int = 0  # pixels
    noise: float = 0  # grey levels of 255
    median: int = 0  # pixels on a side

    @property
    def name(self) -> str:
        """As "mirrored, noise"."""
        return f"{self.orientation}, {self.appearance}"


def _enumerate() -> tuple[Child, ...]:
    oriented = (
        child
        for turn in ORIENTATIONS
        for child in (
            Child(turn),
            Child(turn, "rotated by 2 degrees", degrees=2),
            Child(turn, "rotated by -2 degrees", degrees=-2),
            *(Child(turn, f"3 pixels {to}", shift=by) for to, by in SHIFTS.items()),
            Child(turn, "pixels spread", spread=SPREAD),
            Child(turn, "noise", noise=NOISE),
        )
    )
    medians = (Child(appearance=f"median of {side} x {side}", median=side) for side in (2, 5))
    return (*oriented, *medians)


CHILDREN = _enumerate()


def children(tensors: Tensor, images: Tensor, kinds: Tensor, seed: int) -> Tensor:
    """One child of each image, the same wherever and in whatever company it is made.

    Args:
        tensors: (B, 1, S, S) uint8 on any device, S at most 8192.
        images: (B,) int64, the identities of the images: their positions in the manifest.
        kinds: (B,) int64 in 0..105, positions in CHILDREN.
        seed: Of the study; it changes spread and noise and nothing else.

    Returns:
        (B, 1, S, S) float32 of 0..255 on the same device: whole grey levels, as of 8-bit files, and
        halves where a 2 x 2 median lies between two.
    """
    tables = _tables(tensors.device)
    kinds = kinds.to(tensors.device)
    moved = _move(tensors[:, 0], tables.sources[kinds])
    made = moved.float()
    hashed = keys(seed, images.to(tensors.device), kinds)
    operations = tables.operations[kinds]
    for number, operation in enumerate((_spread, _noise, _median_2x2, _median_5x5), start=1):
        (chosen,) = torch.nonzero(operations == number, as_tuple=True)
        if len(chosen):
            made[chosen] = operation(moved[chosen], hashed[chosen]).float()
    return made[:, None]


def as_table() -> str:
    """The 106 as two Markdown tables: a child's number is the sum of both its numbers."""
    each = len(CHILDREN) // len(ORIENTATIONS)
    lines = ["| number | orientation |", "|---|---|"]
    lines += [f"| {number * each} | {name} |" for number, name in enumerate(ORIENTATIONS)]
    lines += ["", "| number | appearance |", "|---|---|"]
    lines += [f"| {kind} | {child.appearance} |" for kind, child in enumerate(CHILDREN[:each])]
    rest = list(enumerate(CHILDREN))[each * len(ORIENTATIONS) :]
    lines += [f"| {kind} | {child.appearance}, of the image as it is |" for kind, child in rest]
    return "\n".join(lines) + "\n"


class _Tables(NamedTuple):
    sources: Tensor  # (106, 2, 3) int32: what x and y of the source make of x, y and 1; fixed point
    operations: Tensor  # (106,) int64: 0 none, then spread, noise and the medians


@cache
def _tables(device: torch.device) -> _Tables:
    sources = np.stack([_source(child) for child in CHILDREN])
    operations = [
        1 if c.spread else 2 if c.noise else {0: 0, 2: 3, 5: 4}[c.median] for c in CHILDREN
    ]
    return _Tables(
        torch.tensor(np.rint(sources * 2**FIXED), dtype=torch.int32, device=device),
        torch.tensor(operations, device=device),
    )


def _source(child: Child) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    turn = np.array(ORIENTATIONS[child.orientation], dtype=np.float64).reshape(2, 2)
    angle = math.radians(child.degrees)
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return np.column_stack((turn @ rotation, -turn @ child.shift))


def _move(pictures: Tensor, sources: Tensor) -> Tensor:
    """(B, S, S) uint8 -> the same, each pixel from where `sources` (B, 2, 3) says."""
    side = pictures.shape[-1]
    x, y = _coordinates(sources, side)
    moved = _tap(pictures, x >> FIXED + 1, y >> FIXED + 1)
    diagonal = (sources[:, 0, 0] != 0) & (sources[:, 0, 1] != 0)
    (chosen,) = torch.nonzero(diagonal, as_tuple=True)
    if len(chosen):
        moved[chosen] = _bilinear(pictures[chosen], x[chosen], y[chosen])
    return moved


def _coordinates(sources: Tensor, side: int) -> Tensor:
    """(2, B, S, S) int32: x and y of the source, in 2**-17 of a pixel from the first's centre."""
    # twice the distance from the centre is whole for an even side as well as for an odd one
    at = torch.arange(1 - side, side, 2, dtype=torch.int32, device=sources.device)
    a, b, c = sources.permute(2, 1, 0)[..., None, None]
    source: Tensor = a * at + (b * at[:, None] + 2 * c + (side - 1 << FIXED))
    return source


def _tap(pictures: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pixels at whole coordinates (B, S, S); black outside."""
    side = pictures.shape[-1]
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    index = torch.where(inside, y * side + x, 0).flatten(1).long()
    return pictures.flatten(1).gather(1, index).view_as(pictures) * inside


def _bilinear(pictures: Tensor, x: Tensor, y: Tensor) -> Tensor:
    left, top, full = x >> FIXED + 1, y >> FIXED + 1, 1 << WEIGHT
    right, down = ((at >> FIXED + 1 - WEIGHT) & full - 1 for at in (x, y))
    upper = _tap(pictures, left, top) * (full - right) + _tap(pictures, left + 1, top) * right
    left_below, right_below = _tap(pictures, left, top + 1), _tap(pictures, left + 1, top + 1)
    lower = left_below * (full - right) + right_below * right
    blended = upper * (full - down) + lower * down
    return (blended + (1 << 2 * WEIGHT - 1) >> 2 * WEIGHT).to(torch.uint8)


def _spread(pictures: Tensor, hashed: Tensor) -> Tensor:
    """Each pixel from a random place in the square around it; beyond an edge, from the edge."""
    side, reach = pictures.shape[-1], 2 * SPREAD + 1
    at = torch.arange(side, device=pictures.device)
    words = bits(hashed, side * side).view_as(pictures)
    across = ((words & 0xFFFF) * reach >> 16) - SPREAD
    along = ((words >> 16 & 0xFFFF) * reach >> 16) - SPREAD
    x, y = (at + across).clamp(0, side - 1), (at[:, None] + along).clamp(0, side - 1)
    return pictures.flatten(1).gather(1, (y * side + x).flatten(1)).view_as(pictures)


def _noise(pictures: Tensor, hashed: Tensor) -> Tensor:
    words = bits(hashed, pictures[0].numel()).view(pictures.shape)
    noise = normal_table(NOISE, pictures.device)[words & 0xFFFF]
    return (pictures + noise).clamp(0, 255)


def _median_2x2(pictures: Tensor, _: Tensor) -> Tensor:
    return median_2x2(pictures)


def _median_5x5(pictures: Tensor, _: Tensor) -> Tensor:
    return median_5x5(pictures)
