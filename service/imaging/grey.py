"""Colour samples that are really grey, as secondary captures and web images often are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.imaging.errors import ColourImageError
from service.imaging.picture import Pixels

# JPEG rounds the channels of a grey image apart by a few steps. A coloured arrow or a logo on a
# radiograph covers well under a hundredth of it; a photograph or a colour map does not.
COLOURED_SPREAD = 24  # of 255
MAX_COLOURED_SHARE = 0.01
AT_ONCE = 2**20  # samples: what they mean takes ten times their bytes


def grey_of_colour(
    samples: npt.NDArray[Any], bits: int | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Take the middle channel of an image whose channels agree.

    Args:
        samples: (rows, columns, 3), uint8 or uint16.
        bits: Of these, how many are in use; None for all.

    Returns:
        (rows, columns) of the same type, and a warning where some pixels were coloured.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of the pixels are coloured.
    """
    coloured = int(np.count_nonzero(is_coloured(samples, bits)))
    return samples[..., 1], check_share(coloured, samples[..., 1].size)


def grey_of_luminance(samples: npt.NDArray[Any], bits: int) -> tuple[Pixels, tuple[str, ...]]:
    """The same of Y, Cb and Cr: take Y, where the colours that they mean agree.

    References:
        PS3.3 C.7.6.3.1.2, YBR_FULL.
    """
    coloured = 0
    for part in np.array_split(samples, -(-samples.size // AT_ONCE)):
        blue, red = (part[..., channel].astype(np.float32) - 2 ** (bits - 1) for channel in (1, 2))
        from_luminance = (1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue)
        coloured += int(np.count_nonzero(_differ(*from_luminance, bits)))
    return samples[..., 0], check_share(coloured, samples[..., 0].size)


def is_coloured(samples: npt.NDArray[Any], bits: int | None = None) -> npt.NDArray[np.bool_]:
    """Whether the channels, along the last axis, differ by more than COLOURED_SPREAD.

    Samples of 10 or 12 bits stand in 16, and not every file says so.
    """
    if bits is None and samples.dtype == np.uint16:
        bits = max(8, int(samples.max()).bit_length())
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    return _differ(red, green, blue, bits or samples.dtype.itemsize * 8)


def _differ(
    red: npt.NDArray[Any], green: npt.NDArray[Any], blue: npt.NDArray[Any], bits: int
) -> npt.NDArray[np.bool_]:
    # Channel by channel: a minimum over the last axis takes ten times as long
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    differ: npt.NDArray[np.bool_] = high - low > COLOURED_SPREAD * (2**bits - 1) // 255
    return differ


def check_share(coloured: int, pixels: int) -> tuple[str, ...]:
    """Tolerate few coloured pixels, with a warning.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of them.
    """
    if coloured > MAX_COLOURED_SHARE * pixels:
        raise ColourImageError("the image is in colour; a radiograph is grey")
    return ("coloured_marks_ignored",) if coloured else ()
