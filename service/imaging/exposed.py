"""What of a picture is exposed and shown, within padding, shutters and borders: version 2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.imaging.picture import WHOLE, Field, Mask, Picture, Pixels, sampling
from service.imaging.tensor import Tensor

# Rows and columns of a border: grey levels of 255 from the most frequent one, and the share of its
# pixels that must be so near. The tensor's pixels are means of many, so that noise is small there
BORDER_LEVELS = 4
BORDER_SHARE = 0.98
# An edge ends it if, within so many lines behind it, no more than this share is so near
EDGE_LINES, EDGE_LEVELS, EDGE_SHARE = 2, 12, 0.9

# Of declared padding and shutters: a row or column belongs to the field if so much of it is shown
SHOWN_SHARE = 0.02
DARKEST_PERCENTILE = 0.5  # of what is shown: single pixels of a smeared edge may be darker


def declared_field(picture: Picture, grid: int = 1) -> Picture:
    """Without what the file itself says is not shown: padding, and what a shutter hides.

    The picture is cut to the field; within it, hidden pixels get the darkest value of the rest.

    Args:
        picture: As decoded.
        grid: See `Picture.cropped`.
    """
    shown = _shown(picture)
    if shown is None:
        return picture
    rows, columns = (_ends(shown.mean(axis=axis) >= SHOWN_SHARE) for axis in (1, 0))
    if rows is None or columns is None:  # hardly anything is: then this cannot be meant
        return picture._replace(padding=None, shutter=None)
    height, width = shown.shape
    field = Field(rows[0] / height, rows[1] / height, columns[0] / width, columns[1] / width)
    cropped = picture.cropped(field, grid)
    inner = _shown(cropped)
    assert inner is not None
    if not inner.all():
        cropped = cropped._replace(pixels=_darkened(cropped, inner))
    return cropped._replace(padding=None, shutter=None)


def _shown(picture: Picture) -> Mask | None:
    """None where the file says nothing."""
    if picture.padding is None:
        return picture.shutter
    seen = ~picture.padding
    return seen if picture.shutter is None else seen & picture.shutter


def _ends(lines: Mask) -> tuple[int, int] | None:
    """The first, and the one after the last."""
    found = np.flatnonzero(lines)
    return (int(found[0]), int(found[-1]) + 1) if len(found) >= 1 else None


def _darkened(picture: Picture, shown: Mask) -> Pixels:
    grid = sampling(shown)
    values = picture.pixels[grid][shown[grid]]
    if not values.size:
        values = picture.pixels[shown]
    share = 100 - DARKEST_PERCENTILE if picture.inverted else DARKEST_PERCENTILE
    darkest = np.percentile(values, share, method="nearest")
    return np.where(shown, picture.pixels, darkest.astype(picture.pixels.dtype))


def field_of(tensor: Tensor, *, sharp: bool = False) -> Field:
    """The part within a border of constant rows and columns, as fractions; WHOLE if none is there.

    Args:
        tensor: (1, S, S), of the picture.
        sharp: Whether a border counts only if an edge ends it, as rims do that a first cut left.
            Half-shadows fade: where they are cut once more would depend on compression.
    """
    grey = tensor[0]
    side = len(grey)
    top, bottom, left, right = 0, side, 0, side
    before = None
    while before != (top, bottom, left, right):
        before = top, bottom, left, right
        top += _border(grey[top:bottom, left:right], sharp=sharp)
        bottom -= _border(grey[top:bottom, left:right][::-1], sharp=sharp)
        left += _border(grey[top:bottom, left:right].T, sharp=sharp)
        right -= _border(grey[top:bottom, left:right].T[::-1], sharp=sharp)
        if bottom - top < 2 or right - left < 2:  # nothing else is there
            return WHOLE
    return Field(top / side, bottom / side, left / side, right / side)


def _border(lines: npt.NDArray[np.uint8], *, sharp: bool) -> int:
    """How many lines from the first on are as constant as it, and of its grey."""
    if lines.size < 2 * len(lines) or len(lines) < 2:
        return 0
    grey = int(np.bincount(lines[0]).argmax())
    if not _near(lines[0], grey, BORDER_LEVELS) >= BORDER_SHARE:  # as in most pictures
        return 0
    of_border = _near(lines, grey, BORDER_LEVELS) >= BORDER_SHARE
    if of_border.all():
        return len(lines)
    count = int(np.argmin(of_border))
    behind = _near(lines[count : count + EDGE_LINES], grey, EDGE_LEVELS)
    return 0 if sharp and behind.min() > EDGE_SHARE else count


def _near(lines: npt.NDArray[np.uint8], grey: int, levels: int) -> npt.NDArray[np.float64]:
    """The share of each line's pixels that differ from a grey by no more than so many levels."""
    inside = (lines >= max(0, grey - levels)) & (lines <= min(255, grey + levels))
    share: npt.NDArray[np.float64] = np.count_nonzero(inside, axis=-1) / lines.shape[-1]
    return share
