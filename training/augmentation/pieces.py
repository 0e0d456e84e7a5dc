"""Halves and quarters of an image, cut before preprocessing, as archives hold them too."""

from __future__ import annotations

from functools import partial

from training.augmentation.image_files import Change, Grey

# Left, upper, right and lower edge, in halves of the sides
_EDGES = (
    *((0, 0, 2, 1), (0, 1, 2, 2), (0, 0, 1, 2), (1, 0, 2, 2)),
    *((0, 0, 1, 1), (1, 0, 2, 1), (0, 1, 1, 2), (1, 1, 2, 2)),
)


def cut(image: Grey, edges: tuple[int, int, int, int]) -> Grey:
    """The part within these edges, which are in halves of the sides."""
    sides = (*image.size, *image.size)
    left, upper, right, lower = (at * side // 2 for at, side in zip(edges, sides, strict=True))
    return image.crop((left, upper, right, lower))


PIECES: tuple[Change, ...] = tuple(partial(cut, edges=each) for each in _EDGES)
