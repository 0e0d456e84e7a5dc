"""A decoded image, and which part of it is shown."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]  # (rows, columns), any integer or float type, in any unit
Mask = npt.NDArray[np.bool_]  # (rows, columns)
Wavelet = Literal["5/3", "9/7"]  # of JPEG 2000, reversible and not (T.800 F.3)


class Field(NamedTuple):
    """Rows and columns, from the first to before the last, as fractions of the whole (0..1)."""

    top: float
    bottom: float
    left: float
    right: float


SAMPLES = 128
ROUNDING = 1e-6  # of a fraction, in steps: it must not add one
WHOLE = Field(0, 1, 0, 1)


class Picture(NamedTuple):
    """Pixels with what the file says of their display."""

    pixels: Pixels  # as decoded: perhaps at half, quarter, ... of `size`
    size: tuple[int, int]  # rows, columns of the image itself
    inverted: bool = False  # low values are displayed bright
    wavelet: Wavelet | None = None  # of which reduced pixels are the low-pass band
    lossy: bool = False  # by compression, so that edges are smeared
    padding: Mask | None = None  # which pixels are declared to be Pixel Padding
    shutter: Mask | None = None  # which are shown, by the Display Shutter

    @property
    def reduction(self) -> int:
        """How many rows of the image one row of pixels stands for."""
        return round(self.size[0] / len(self.pixels))

    @property
    def smeared(self) -> bool:
        """Whether a pixel may hold parts of its neighbours."""
        return self.lossy or self.reduction > 1

    def cropped(self, field: Field, grid: int = 1) -> Self:
        """The smallest part that holds a field.

        Args:
            field: Of this picture.
            grid: Rows and columns of the image that are cut off together. If it is a multiple of
                any `reduction`, an image is cut alike at whatever size it was decoded.
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
            padding=None if self.padding is None else self.padding[part],
            shutter=None if self.shutter is None else self.shutter[part],
        )


def _within(start: float, end: float, length: int, step: int) -> tuple[int, int]:
    first = math.floor(start * length / step + ROUNDING) * step
    return first, min(length, math.ceil(end * length / step - ROUNDING) * step)


def halvings(rows: int, columns: int, min_side: int) -> int:
    """How often both sides can be halved and keep `min_side` pixels."""
    return max(0, (min(rows, columns) // min_side).bit_length() - 1)


def sampling(pixels: Pixels) -> tuple[slice, ...]:
    """Which rows and columns to look at where not all need be: SAMPLES of each, or up to twice."""
    return tuple(slice(None, None, max(1, side // SAMPLES)) for side in pixels.shape)
