"""Grey pixels of any size and range -> the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store import PreprocessSpec
from service.imaging.errors import BlankImageError, ImageTooLargeError, ImageTooSmallError

Pixels = npt.NDArray[Any]  # (rows, columns), any integer or float type, in any unit
Tensor = npt.NDArray[np.uint8]  # (1, S, S)

# A 43 x 43 cm detector of 100 um has 18 megapixels and film digitised for mammography 28; beyond
# this it is a mistake or an attack on memory. Decoding takes at most about ten bytes a pixel.
MAX_PIXELS = 40 * 2**20  # samples, where an image has several a pixel
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


def pixels_to_tensor(pixels: Pixels, inverted: bool, spec: PreprocessSpec) -> Tensor:
    """Squash, window and quantise one image.

    Args:
        pixels: (rows, columns), linear in the displayed value up to a window, any unit.
        inverted: Whether low values are displayed bright (then the sign is changed, which unlike
            `max - pixels` does not depend on the brightest pixel).
        spec: The model's own preprocessing.

    Returns:
        (1, S, S) uint8 with bone bright and air dark, 0 and 255 at the window's ends.

    Raises:
        BlankImageError: The window is empty: all pixels, or nearly all, are equal.

    References:
        Rajkomar et al., J Digit Imaging 30(1), 2017: 8-bit grey, squashed to 256 x 256.
    """
    thumbnail = squash(pixels, spec.size)
    if inverted:
        thumbnail = -thumbnail
    low, high = np.percentile(thumbnail, spec.window_percentiles)
    if not high > low:
        raise BlankImageError("all pixels have the same value")
    scaled = (thumbnail - low) * (255 / (high - low))
    tensor: Tensor = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[np.newaxis]
    return tensor


def squash(pixels: Pixels, size: int) -> npt.NDArray[np.float32]:
    """Area-average (rows, columns) to (size, size), ignoring the aspect ratio."""
    factor = max(1, min(pixels.shape) // (2 * size))
    means = Image.fromarray(block_sum(pixels, factor) / np.float32(factor**2))
    return np.asarray(means.resize((size, size), Image.Resampling.BOX))


def block_sum(pixels: Pixels, factor: int) -> npt.NDArray[np.float32]:
    """Sum over factor x factor blocks, rows first, so no full-size float array ever exists."""
    rows, columns = (side // factor * factor for side in pixels.shape)
    sums = pixels[:rows:factor, :columns].astype(np.float32)
    for offset in range(1, factor):
        sums += pixels[offset:rows:factor, :columns]
    blocks = sums[:, ::factor].copy()
    for offset in range(1, factor):
        blocks += sums[:, offset::factor]
    return blocks
