"""A decoded image, with its polarity and masks."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]  # (rows, columns), any integer or float type, in any unit
Mask = npt.NDArray[np.bool_]  # (rows, columns)
Wavelet = Literal["5/3", "9/7"]  # of JPEG 2000: reversible, irreversible (T.800 F.3)


class Field(NamedTuple):
    """A rectangle in fractions (0..1) of rows and columns; `bottom` and `right` are exclusive."""

    top: float
    bottom: float
    left: float
    right: float


SAMPLES = 128
ROUNDING = 1e-6  # tolerance in steps, so that rounding errors of fractions add no step
WHOLE = Field(0, 1, 0, 1)


class Picture(NamedTuple):
    """Pixels, with the attributes that affect their display."""

    pixels: Pixels  # as decoded, perhaps at half, quarter, ... of `size`
    size: tuple[int, int]  # rows, columns of the whole image
    inverted: bool = False  # low values are displayed bright
    wavelet: Wavelet | None = None  # reduced pixels are its low-pass band
    lossy: bool = False  # compression was lossy, so edges are smeared
    padding: Mask | None = None  # true for declared Pixel Padding
    shutter: Mask | None = None  # true for pixels that the Display Shutter shows
    origin: tuple[int, int] = (0, 0)  # row and column of a larger image, if this is a part of it

    @property
    def reduction(self) -> int:
        """Rows of the image for each row of pixels: 1, or a power of two."""
        return round(self.size[0] / len(self.pixels))

    @property
    def smeared(self) -> bool:
        """Whether a pixel may hold parts of its neighbours."""
        return self.lossy or self.reduction > 1

    def place_of(self, part: Picture) -> Field:
        """Where a cropped part of this picture lies in it."""
        rows, columns = self.size
        top, left = part.origin[0] - self.origin[0], part.origin[1] - self.origin[1]
        height, width = part.size
        return Field(top / rows, (top + height) / rows, left / columns, (left + width) / columns)

    def cropped(self, field: Field, grid: int = 1) -> Self:
        """The smallest part that contains a field.

        Args:
            field: A field of this picture.
            grid: Rows and columns are cropped in multiples of this number of image pixels. If it is
                a multiple of every `reduction`, the crop does not depend on the decoded size.
        """
        step = max(grid, self.reduction)
        top, bottom = _within(field.top, field.bottom, self.size[0], step)
        left, right = _within(field.left, field.right, self.size[1], step)
        part = tuple(
            slice(start // self.reduction, math.ceil(end / self.reduction))
            for start, end in ((top, bottom), (left, right))
        )
        return self._replace(
            pixels=self.pixels[part],
            size=(bottom - top, right - left),
            origin=(self.origin[0] + top, self.origin[1] + left),
            padding=None if self.padding is None else self.padding[part],
            shutter=None if self.shutter is None else self.shutter[part],
        )


def _within(start: float, end: float, length: int, step: int) -> tuple[int, int]:
    first = math.floor(start * length / step + ROUNDING) * step
    return first, min(length, math.ceil(end * length / step - ROUNDING) * step)


def halvings(rows: int, columns: int, min_side: int) -> int:
    """How often both sides can be halved while they keep `min_side` pixels."""
    return max(0, (min(rows, columns) // min_side).bit_length() - 1)


def sampling(pixels: Pixels) -> tuple[slice, ...]:
    """Slices that sample SAMPLES rows and columns, or up to twice as many."""
    return tuple(slice(None, None, max(1, side // SAMPLES)) for side in pixels.shape)
