"""Preprocess a decoded picture for the network, by the model's card."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from model_store import PreprocessSpec
from service.imaging.exposed import declared_field, field_of
from service.imaging.outliers import without_outliers
from service.imaging.picture import WHOLE, Mask, Picture, Pixels, halvings
from service.imaging.tensor import MIN_SIDE, Tensor, pixels_to_tensor

# A border is cropped if less than this share of the area remains. For ordinary radiographs the
# least is 0.63, and at 0.7 no PFI changes by 0.008; at 0.85, two of 4,331 do, both towards their
# view
FIELD_AREA = 0.7
LOOKS = 4  # passes over a picture; each finds the rest of a border more precisely
# With fewer pixels on a side of the field, an answer is doubtful
CERTAIN_SIDE = 2 * MIN_SIDE
CERTAIN_SHARE = 0.05  # of the area; if less remains, the cropped part may belong to the radiograph
# Pixels of the field for each pixel of the tensor; with fewer, edges depend on the decoded size
FINE = 3
# Two radiographs side by side: the picture has at least this aspect ratio, and in its middle half
# two neighbouring columns differ, in half of the rows, by more than PANELS_STEP times the usual
# difference plus LEVELS. Of 175 ordinary radiographs as wide, none does; of 200 pairs, 19 in 20 do
PANELS_WIDTH = 1.3
PANELS_STEP = 2.5
AROUND = 6  # columns on both sides
LEVELS = 3


class Prepared(NamedTuple):
    """A tensor, and warnings about the picture."""

    tensor: Tensor  # (1, S, S)
    warnings: tuple[str, ...] = ()
    # The `min_side` at which the picture must be decoded, so that the field has FINE * S pixels;
    # None if it has as many already, or the whole picture is shown
    finer: int | None = None
    shown: Picture | None = None  # the part that became the tensor; None: the whole picture


def prepare(picture: Picture, spec: PreprocessSpec) -> Prepared:
    """Find the shown field; squash, window and quantise it.

    Args:
        picture: As decoded.
        spec: The model's preprocessing.

    Raises:
        BlankImageError: All pixels, or nearly all, are equal.
    """
    if spec.version == 1:
        return Prepared(_tensor(_without_padding(picture), spec))
    found = declared_field(picture, _grid(picture, spec))
    outliers = bordered = False
    for _ in range(LOOKS):
        found, had_outliers = without_outliers(found)
        outliers |= had_outliers
        tensor = _tensor(found, spec)
        field = field_of(tensor, sharp=bordered)
        if field == WHOLE:  # the usual case
            break
        smaller = found.cropped(field, _grid(found, spec))
        if _area(smaller) >= _area(found) * (1 if bordered else FIELD_AREA):
            break
        found, bordered = smaller, True
    warnings = {
        "outliers_ignored": outliers,
        "border_ignored": bordered,
        "panels": _has_panels(found, tensor),
        "small_field": min(found.size) < CERTAIN_SIDE <= min(picture.size)
        or _area(found) < CERTAIN_SHARE * _area(picture),
    }
    return Prepared(
        tensor,
        tuple(name for name, is_so in warnings.items() if is_so),
        _finer(picture, found, spec.size),
        found,
    )


def _tensor(picture: Picture, spec: PreprocessSpec) -> Tensor:
    return pixels_to_tensor(
        picture.pixels, picture.inverted, spec, picture.size, wavelet=picture.wavelet
    )


def _has_panels(picture: Picture, tensor: Tensor) -> bool:
    rows, columns = picture.size
    if columns < PANELS_WIDTH * rows:
        return False
    grey = tensor[0].astype(np.int16)
    steps = np.median(np.abs(np.diff(grey, axis=1)), axis=0)
    around = sliding_window_view(np.pad(steps, AROUND, mode="edge"), 2 * AROUND + 1)
    middle = slice(len(steps) // 4, 3 * len(steps) // 4)
    usual = np.median(around, axis=1) + LEVELS
    return bool((steps[middle] > PANELS_STEP * usual[middle]).any())


def _grid(picture: Picture, spec: PreprocessSpec) -> int:
    """The largest reduction at which the picture can be decoded for this spec."""
    return 1 << halvings(*picture.size, spec.size)


def _area(picture: Picture) -> int:
    return picture.size[0] * picture.size[1]


def _finer(whole: Picture, field: Picture, side: int) -> int | None:
    if whole.reduction == 1 or field.size == whole.size or min(field.pixels.shape) >= FINE * side:
        return None
    pairs = zip(whole.size, field.size, strict=True)
    return math.ceil(FINE * side * max(of_whole / of_field for of_whole, of_field in pairs))


def _without_padding(picture: Picture) -> Picture:
    """Version 1: padding gets the darkest value of the other pixels, and is not cropped."""
    if picture.padding is None:
        return picture
    return picture._replace(pixels=_darken(picture.pixels, picture.padding, picture.inverted))


def _darken(pixels: Pixels, padding: Mask, inverted: bool) -> Pixels:
    limits = np.iinfo(pixels.dtype)
    if inverted:
        darkest = np.where(padding, limits.min, pixels).max()
    else:
        darkest = np.where(padding, limits.max, pixels).min()
    return np.where(padding, darkest, pixels)
