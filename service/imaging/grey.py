"""Colour samples that are really grey, as secondary captures and web images often are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.imaging.errors import ColourImageError
from service.imaging.tensor import Pixels

# JPEG rounds the channels of a grey image apart by a few steps. A coloured arrow or a logo on a
# radiograph covers well under a hundredth of it; a photograph or a colour map does not.
COLOURED_SPREAD = 24  # of 255
MAX_COLOURED_SHARE = 0.01


def grey_of_colour(samples: npt.NDArray[Any]) -> tuple[Pixels, tuple[str, ...]]:
    """Take the middle channel of an image whose channels agree.

    Args:
        samples: (rows, columns, 3), uint8 or uint16.

    Returns:
        (rows, columns) of the same type, and a warning where some pixels were coloured.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of the pixels are coloured.
    """
    coloured = int(np.count_nonzero(is_coloured(samples)))
    return samples[..., 1], check_share(coloured, samples[..., 1].size)


def is_coloured(samples: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether the channels, along the last axis, differ by more than COLOURED_SPREAD.

    Samples of 10 or 12 bits stand in 16: there it is a share of the largest value.
    """
    limit = COLOURED_SPREAD
    if samples.dtype == np.uint16:
        limit = COLOURED_SPREAD * max(255, int(samples.max())) // 255
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    # Channel by channel: a minimum over the last axis takes ten times as long
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    differ: npt.NDArray[np.bool_] = high - low > limit
    return differ


def check_share(coloured: int, pixels: int) -> tuple[str, ...]:
    """Tolerate few coloured pixels, with a warning.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of them.
    """
    if coloured > MAX_COLOURED_SHARE * pixels:
        raise ColourImageError("the image is in colour; a radiograph is grey")
    return ("coloured_marks_ignored",) if coloured else ()
