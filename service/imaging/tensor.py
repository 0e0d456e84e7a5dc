"""Grey pixels of any size and range -> the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model_store import PreprocessSpec
from service.imaging.errors import BlankImageError, ImageTooLargeError, ImageTooSmallError

Pixels = npt.NDArray[Any]  # (rows, columns), any integer or float type, in any unit
Tensor = npt.NDArray[np.uint8]  # (1, S, S)

# A 43 x 43 cm detector of 100 um has 18 megapixels and film digitised for mammography 28; beyond
# this it is a mistake or an attack on memory. Decoding takes at most about ten bytes a pixel.
MAX_PIXELS = 40 * 2**20  # samples, where an image has several a pixel
ROUNDING = 1e-6  # of a float32 mean of equal pixels
MIN_SIDE = 32  # pixels; below this a thorax has no shape left


def check_size(rows: int, columns: int, samples: int = 1) -> None:
    """Refuse sizes that cannot be a radiograph, before anything of that size is allocated.

    Raises:
        ImageTooSmallError: A side is shorter than MIN_SIDE.
        ImageTooLargeError: More than MAX_PIXELS samples.
    """
    if min(rows, columns) < MIN_SIDE:
        raise ImageTooSmallError(
            f"the image has {rows} x {columns} pixels; each side needs {MIN_SIDE}"
        )
    if rows * columns * samples > MAX_PIXELS:
        raise ImageTooLargeError(
            f"the image declares {rows} x {columns} x {samples} samples; the limit is {MAX_PIXELS}"
        )


def pixels_to_tensor(
    pixels: Pixels, inverted: bool, spec: PreprocessSpec, size: tuple[int, int] | None = None
) -> Tensor:
    """Squash, window and quantise one image.

    Args:
        pixels: (rows, columns), linear in the displayed value up to a window, any unit.
        inverted: Whether low values are displayed bright (then the sign is changed, which unlike
            `max - pixels` does not depend on the brightest pixel).
        spec: The model's own preprocessing.
        size: Rows and columns of the image, where `pixels` was decoded at half, quarter, ... of it.

    Returns:
        (1, S, S) uint8 with bone bright and air dark, 0 and 255 at the window's ends.

    Raises:
        BlankImageError: The window is empty: all pixels, or nearly all, are equal.

    References:
        Rajkomar et al., J Digit Imaging 30(1), 2017: 8-bit grey, squashed to 256 x 256.
    """
    thumbnail = squash(pixels, spec.size, size or pixels.shape)
    if inverted:
        thumbnail = -thumbnail
    low, high = np.percentile(thumbnail, spec.window_percentiles)
    if not high - low > ROUNDING * max(abs(low), abs(high)):
        raise BlankImageError("all pixels have the same value")
    scaled = (thumbnail - low) * (255 / (high - low))
    tensor: Tensor = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[np.newaxis]
    return tensor


def squash(pixels: Pixels, side: int, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Average over side x side equal fields of an image of `size`, ignoring its aspect ratio.

    Fields are cut to the fraction of a pixel, or of a block of pixels where a field holds several:
    dropping a remainder, or a box filter that takes whole pixels only, gives one picture two
    tensors when it is decoded at two sizes, and PFIs 0.01 apart.
    """
    reduction = round(size[0] / pixels.shape[0])  # 1, or a power of two
    factor = max(1, min(pixels.shape) // (2 * side))
    blocks = block_mean(block_mean(pixels, factor).T, factor).T
    rows, columns = (length / (reduction * factor) for length in size)
    return area_mean(area_mean(blocks, side, rows).T, side, columns).T


def block_mean(values: Pixels, factor: int) -> npt.NDArray[np.float32]:
    """Average `factor` rows at a time, without a float copy of the whole; the last may be fewer."""
    sums = values[::factor].astype(np.float32)
    for offset in range(1, factor):
        rows = values[offset::factor]
        sums[: len(rows)] += rows
        sums[len(rows) :] += values[-1]  # in place of a missing row, the last one
    means: npt.NDArray[np.float32] = sums / np.float32(factor)
    return means


def area_mean(
    values: npt.NDArray[np.float32], count: int, extent: float
) -> npt.NDArray[np.float32]:
    """Average the first `extent` rows, a fraction included, over `count` equal stretches."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    edges = np.linspace(0, extent, count + 1)
    whole = np.minimum(edges.astype(int), len(values) - 1)
    integral = sums[whole] + (edges - whole)[:, np.newaxis] * values[whole]
    means: npt.NDArray[np.float32] = (np.diff(integral, axis=0) * (count / extent)).astype("f4")
    return means
