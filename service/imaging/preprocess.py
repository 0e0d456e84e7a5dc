"""A decoded picture -> the network's input, as the model's card says."""

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

# A border is cut off if it leaves less of the picture. Of ordinary radiographs, the least is 0.63,
# and at 0.7 no PFI moves by 0.008; at 0.85, two of 4,331 do, both towards their view
FIELD_AREA = 0.7
LOOKS = 4  # at a picture; each sees what is left of a border finer, or sees that nothing is
# Of the field within a border: with fewer pixels, an answer is not certain
CERTAIN_SIDE = 2 * MIN_SIDE
CERTAIN_SHARE = 0.05  # of the picture: less, and it is not sure that the rest is none of it
# Pixels of a field for each of the tensor: with fewer, its edges depend on how it was decoded
FINE = 3
# Two radiographs side by side: the picture is so wide, and somewhere in its middle half two columns
# differ, in half of the rows, by so many times what those around differ by, and LEVELS of grey. Of
# 175 ordinary radiographs as wide, none does; of 200 pairs, 19 in 20 do
PANELS_WIDTH = 1.3
PANELS_STEP = 2.5
AROUND = 6  # columns on both sides
LEVELS = 3


class Prepared(NamedTuple):
    """A tensor, and what was odd about the picture."""

    tensor: Tensor  # (1, S, S)
    warnings: tuple[str, ...] = ()
    # Pixels that the shorter side of the whole needs so that the field has FINE S; None if the
    # whole is shown, or the field has so many
    finer: int | None = None


def prepare(picture: Picture, spec: PreprocessSpec) -> Prepared:
    """Find what is shown, squash, window and quantise it.

    Args:
        picture: As decoded.
        spec: The model's own preprocessing.

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
        if field == WHOLE:  # as of most pictures
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
    """Version 1: padding is as dark as the darkest of the rest, and part of the picture."""
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
