"""Read colour samples that are grey, as in many secondary captures and web images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.imaging.errors import ColourImageError
from service.imaging.picture import Pixels

# The channels of a grey image differ by a few steps after JPEG. A coloured arrow or a logo covers
# well under a hundredth of a radiograph; the colours of a photograph or a colour map cover more
COLOURED_SPREAD = 24  # of 255
MAX_COLOURED_SHARE = 0.01
AT_ONCE = 2**20  # samples converted at a time, which takes ten times their bytes


def grey_of_colour(
    samples: npt.NDArray[Any], bits: int | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """The green channel of an image whose channels agree.

    Args:
        samples: (rows, columns, 3), uint8 or uint16.
        bits: The number of bits in use; None: all.

    Returns:
        (rows, columns) of the same type, and a warning if some pixels were coloured.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of the pixels are coloured.
    """
    coloured = int(np.count_nonzero(is_coloured(samples, bits)))
    return samples[..., 1], check_share(coloured, samples[..., 1].size)


def grey_of_luminance(samples: npt.NDArray[Any], bits: int) -> tuple[Pixels, tuple[str, ...]]:
    """The luminance of an image of Y, Cb and Cr whose colours are grey; see `grey_of_colour`.

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

    Without `bits`, those in use are measured: samples of 10 or 12 bits are stored in 16.
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
    """A warning if some pixels are coloured.

    Raises:
        ColourImageError: More than MAX_COLOURED_SHARE of the pixels are coloured.
    """
    if coloured > MAX_COLOURED_SHARE * pixels:
        raise ColourImageError("the image is in colour; a radiograph is grey")
    return ("coloured_marks_ignored",) if coloured else ()
