"""Exact medians of small neighbourhoods, by a sorting network on shifted pictures.

A network of minimum and maximum sorts the neighbourhoods of all pixels at once, on any device; the
comparisons that no wanted rank depends on are left out.

References:
    K. E. Batcher, Sorting Networks and their Applications, AFIPS 1968; D. E. Knuth, The Art of
    Computer Programming, vol. 3, 5.2.2, Algorithm M (merge exchange).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor


def median_2x2(pictures: Tensor) -> Tensor:
    """(B, R, C) -> (B, R, C) float32: the mean of the two middle values of each pixel and its
    neighbours above, to the left, and above to the left; edges are repeated.
    """
    lower, upper = ranked(_neighbourhoods(pictures, before=1, after=0), (1, 2))
    return (lower.float() + upper.float()) / 2


def median_5x5(pictures: Tensor) -> Tensor:
    """(B, R, C) -> (B, R, C) of the same type: the median of the 5 x 5 pixels around each; edges
    are repeated.
    """
    (median,) = ranked(_neighbourhoods(pictures, before=2, after=2), (12,))
    return median


def ranked(values: Sequence[Tensor], ranks: Sequence[int]) -> list[Tensor]:
    """The elementwise order statistics of tensors of one shape; rank 0 is the minimum."""
    wires = list(values)
    for low, high, keep_low, keep_high in _pruned(len(wires), tuple(ranks)):
        one, other = wires[low], wires[high]
        if keep_low:
            wires[low] = torch.minimum(one, other)
        if keep_high:
            wires[high] = torch.maximum(one, other)
    return [wires[rank] for rank in ranks]


def merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    """The pairs of wires that sort `count` values, in order; the lower wire gets the minimum."""
    first = 1 << max(count - 1, 0).bit_length() >> 1
    step = first
    while step:
        span, phase, distance = first, 0, step
        while True:
            pairs = range(count - distance)
            yield from ((i, i + distance) for i in pairs if i & step == phase)
            if span == step:
                break
            span, phase, distance = span // 2, step, span - step
        step //= 2


@cache
def _pruned(count: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """(low, high, minimum wanted, maximum wanted), without what the ranks do not depend on."""
    wanted, kept = set(ranks), []
    for low, high in reversed(list(merge_exchange(count))):
        if low in wanted or high in wanted:
            kept.append((low, high, low in wanted, high in wanted))
            wanted |= {low, high}
    return tuple(reversed(kept))


def _neighbourhoods(pictures: Tensor, before: int, after: int) -> list[Tensor]:
    rows, columns = pictures.shape[-2:]
    # replication is not defined for uint8, so indices are clamped instead of values padded
    down = torch.arange(-before, rows + after, device=pictures.device).clamp(0, rows - 1)
    right = torch.arange(-before, columns + after, device=pictures.device).clamp(0, columns - 1)
    wide = pictures.index_select(-2, down).index_select(-1, right)
    side = range(before + after + 1)
    return [wide[..., y : y + rows, x : x + columns] for y in side for x in side]
