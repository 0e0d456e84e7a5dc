"""Random numbers that are looked up, not drawn in turn: a hash of what they are for.

References:
    G. L. Steele, D. Lea, C. H. Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014
    (SplitMix64).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as signed 64-bit numbers, which is what torch has
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def keys(seed: int, images: Tensor, kinds: Tensor) -> Tensor:
    """(B,) int64 images and kinds -> (B,) int64, one for each seed, image and kind."""
    seeded = _mixed(torch.full_like(images, seed) * GOLDEN)
    return _mixed(_mixed(seeded + images * GOLDEN) + kinds * GOLDEN)


def bits(hashed: Tensor, count: int) -> Tensor:
    """(B,) keys -> (B, count) int64 of 64 random bits each."""
    positions = torch.arange(1, count + 1, device=hashed.device) * GOLDEN
    return _mixed(hashed[:, None] + positions)


@cache
def normal_table(sigma: float, device: torch.device) -> Tensor:
    """(65536,) int32: the quantiles of a normal distribution, rounded to whole grey levels.

    16 random bits choose one. A table is the same on every device; a logarithm is not.
    """
    middles = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    return torch.round(sigma * torch.special.ndtri(middles)).to(device, torch.int32)


def _mixed(words: Tensor) -> Tensor:
    words = (words ^ _shifted(words, 30)) * FIRST
    words = (words ^ _shifted(words, 27)) * SECOND
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, by: int) -> Tensor:
    """To the right with zeros moving in, as of unsigned numbers; torch's >> repeats the sign."""
    return words >> by & (1 << 64 - by) - 1
