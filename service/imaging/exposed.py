"""The exposed part of a picture, without padding, shutters and borders: preprocessing version 2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.imaging.picture import WHOLE, Field, Mask, Picture, Pixels, sampling
from service.imaging.tensor import Tensor

# A row or column is of a border if this share of its pixels is within so many grey levels, of 255,
# of the most frequent one. The tensor's pixels are means of many, so noise is small
BORDER_LEVELS = 4
BORDER_SHARE = 0.98
# An edge ends a border if, within EDGE_LINES after it, at most EDGE_SHARE of the pixels are within
# EDGE_LEVELS of its grey
EDGE_LINES, EDGE_LEVELS, EDGE_SHARE = 2, 12, 0.9

# A row or column is of the field if padding and shutters leave at least this share of it
SHOWN_SHARE = 0.02
DARKEST_PERCENTILE = 0.5  # of shown pixels; single pixels of a smeared edge may be darker


def declared_field(picture: Picture, grid: int = 1) -> Picture:
    """Remove declared padding, and pixels that a shutter hides.

    The picture is cropped to the shown field; hidden pixels in it get the darkest shown value.

    Args:
        picture: As decoded.
        grid: See `Picture.cropped`.
    """
    shown = _shown(picture)
    if shown is None:
        return picture
    rows, columns = (_ends(shown.mean(axis=axis) >= SHOWN_SHARE) for axis in (1, 0))
    if rows is None or columns is None:  # hardly anything is shown: the declaration is wrong
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
    """The mask of shown pixels; None if the file declares neither padding nor a shutter."""
    if picture.padding is None:
        return picture.shutter
    seen = ~picture.padding
    return seen if picture.shutter is None else seen & picture.shutter


def _ends(lines: Mask) -> tuple[int, int] | None:
    """The first true line, and the one after the last."""
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
    """The part within a border of constant rows and columns, as fractions; WHOLE without a border.

    Args:
        tensor: (1, S, S), of the picture.
        sharp: Count a border only if an edge ends it, like a rim that an earlier crop has left. A
            half-shadow fades, so compression would decide where it is cropped again.
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
    """The number of lines, from the first on, that are as constant as it, and of its grey."""
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
    """The share of each line's pixels within `levels` of a grey level."""
    inside = (lines >= max(0, grey - levels)) & (lines <= min(255, grey + levels))
    share: npt.NDArray[np.float64] = np.count_nonzero(inside, axis=-1) / lines.shape[-1]
    return share
