"""Convert grey pixels of any size and range to the network's input."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model_store import PreprocessSpec
from service.imaging.errors import BlankImageError, ImageTooLargeError, ImageTooSmallError
from service.imaging.picture import Pixels, Wavelet

Tensor = npt.NDArray[np.uint8]  # (1, S, S)

# A 43 x 43 cm detector of 100 um has 18 megapixels, and film digitised for mammography 28; a larger
# image is a mistake or an attack on memory. Decoding takes at most about ten bytes a pixel.
MAX_PIXELS = 40 * 2**20  # samples, if an image has several per pixel
ROUNDING = 4e-6  # relative rounding error of a float32 mean of equal pixels
MIN_SIDE = 32  # pixels; below this a thorax has no recognisable shape

# Sharpening that compensates the wavelets' low-pass filters and linear interpolation. Fitted on 160
# radiographs decoded at half their size; the root mean square error is 2.2 and 2.0 grey levels of
# 255 (2.5 and 3.0 without). The largest difference of a PFI, at one sample for each field, was
# 0.0026 in 680 decodes.
SHARPENING: dict[Wavelet, float] = {"5/3": 0.08, "9/7": 0.17}


def check_size(rows: int, columns: int, samples: int = 1) -> None:
    """Refuse sizes that no radiograph has, before memory for the image is allocated.

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
    pixels: Pixels,
    inverted: bool,
    spec: PreprocessSpec,
    size: tuple[int, int] | None = None,
    *,
    wavelet: Wavelet | None = None,
) -> Tensor:
    """Squash, window and quantise one image.

    Args:
        pixels: (rows, columns), linear in the displayed value before the window, in any unit.
        inverted: Whether low values are displayed bright. The sign is then changed, which, unlike
            `max - pixels`, does not depend on the brightest pixel.
        spec: The model's preprocessing.
        size: Rows and columns of the image, if `pixels` was decoded at half, quarter, ... of it.
        wavelet: The wavelet whose low-pass band `pixels` is, if any.

    Returns:
        (1, S, S) uint8 with bone bright and air dark, 0 and 255 at the window's ends.

    Raises:
        BlankImageError: The window is empty: all pixels, or nearly all, are equal.

    References:
        Rajkomar et al., J Digit Imaging 30(1), 2017: 8-bit grey, squashed to 256 x 256.
    """
    thumbnail = squash(pixels, spec.size, size or pixels.shape, wavelet=wavelet)
    if inverted:
        thumbnail = -thumbnail
    return quantised(thumbnail, window_of(thumbnail, spec))[np.newaxis]


def window_of(thumbnail: npt.NDArray[np.float32], spec: PreprocessSpec) -> tuple[float, float]:
    """The values of a thumbnail, bone bright, that become 0 and 255.

    Raises:
        BlankImageError: The window is empty: all pixels, or nearly all, are equal.
    """
    low, high = np.percentile(thumbnail, spec.window_percentiles)
    if not high - low > ROUNDING * max(abs(low), abs(high)):
        raise BlankImageError("all pixels, or nearly all, have the same value")
    return low, high


def quantised(
    values: npt.NDArray[np.float32], window: tuple[float, float]
) -> npt.NDArray[np.uint8]:
    """The values as grey levels, 0 and 255 at the window's ends."""
    low, high = window
    scaled = (values - low) * (255 / (high - low))
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return levels


def squash(
    pixels: Pixels, side: int, size: tuple[int, ...], *, wavelet: Wavelet | None = None
) -> npt.NDArray[np.float32]:
    """Average over side x side equal fields of an image of `size`, ignoring its aspect ratio.

    Fields have fractional edges, in pixels, or in blocks of pixels if a field has several. Without
    fractions, by dropping a remainder or using whole pixels only, one picture decoded at two sizes
    would get two tensors, with PFIs 0.01 apart. The picture is not copied: its blocks are summed
    first, which takes at most half of its bytes, and less for larger pictures.

    Reduced pixels of a `wavelet` are not means of blocks, but samples at the first pixel of each
    block. The average is then over the linear interpolation between them, sharpened.
    """
    reduction = round(size[0] / pixels.shape[0])  # 1, or a power of two
    factor = max(1, min(pixels.shape) // (2 * side))
    blocks = block_sums(pixels, factor)
    pitch = reduction * factor
    centre = (1 + reduction * (factor - 1)) / (2 * pitch) if wavelet else 0.5
    rows, columns = (
        fields(side, length / pitch, count, centre, wavelet=wavelet if factor == 1 else None)
        for length, count in zip(size, blocks.shape, strict=True)
    )
    if blocks.shape[1] > 4 * blocks.shape[0]:  # a wide strip: side x columns would be large
        means = area_mean(area_mean(blocks.T, columns).T, rows)
    else:
        means = area_mean(area_mean(blocks, rows).T, columns).T
    thumbnail: npt.NDArray[np.float32] = (means / factor**2).astype(np.float32, copy=False)
    return thumbnail


def block_sums(values: Pixels, factor: int) -> Pixels:
    """Sum blocks of factor x factor pixels; an incomplete last block repeats its last pixels."""
    if factor == 1:
        return values
    whole, rest = divmod(len(values), factor)
    dtype = _sum_type(values, factor)
    rows = np.empty((whole + bool(rest), values.shape[1]), dtype)
    blocks = values[: whole * factor].reshape(whole, factor, -1)
    np.add.reduce(blocks, axis=1, dtype=dtype, out=rows[:whole])
    if rest:
        last = values[-1].astype(dtype) * dtype.type(factor - rest)
        rows[whole] = values[whole * factor :].sum(axis=0, dtype=dtype) + last
    sums = rows[:, ::factor].astype(np.float32)
    for offset in range(1, factor):
        columns = rows[:, offset::factor]
        sums[:, : columns.shape[1]] += columns
        sums[:, columns.shape[1] :] += rows[:, -1:]
    return sums


def _sum_type(values: Pixels, factor: int) -> np.dtype[Any]:
    """16 bits if the sums of `factor` values fit, which is four times as fast as float32."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        narrow = np.dtype(f"{values.dtype.kind}2")
        low = int(values.min()) if narrow.kind == "i" else 0
        limits = np.iinfo(narrow)
        if low * factor >= limits.min and int(values.max()) * factor <= limits.max:
            return narrow
    return np.dtype(np.float32)


class Fields(NamedTuple):
    """The samples of each field, and their weights: (side, taps) each."""

    taps: npt.NDArray[np.intp]
    shares: npt.NDArray[np.float32]  # each row sums to 1


@lru_cache(maxsize=64)  # an archive has few sizes
def fields(
    side: int, extent: float, count: int, centre: float = 0.5, wavelet: Wavelet | None = None
) -> Fields:
    """Divide a line of samples into equal fields.

    Args:
        side: The number of fields.
        extent: The total length of the fields in samples, perhaps fractional.
        count: The number of samples; the last is repeated beyond the end.
        centre: The position of the first sample; 0.5 if it is the mean of its block.
        wavelet: Average the linear interpolation of the samples, instead of their blocks.
    """
    edges = np.linspace(-centre, extent - centre, side + 1)
    width = extent / side
    radius = 2.0 if wavelet else 0.5  # samples further away have no weight
    first = np.ceil(edges[:-1] - radius).astype(np.intp)
    taps = first[:, np.newaxis] + np.arange(int(width + 2 * radius) + 2)
    start, end = edges[:-1, np.newaxis] - taps, edges[1:, np.newaxis] - taps
    shares = (_below(end, wavelet) - _below(start, wavelet)) / width
    used = shares.any(axis=0)
    return Fields(taps.clip(0, count - 1)[:, used], shares[:, used].astype(np.float32))


def area_mean(values: Pixels, fields: Fields) -> Pixels:
    """Average rows: (count, columns) -> (side, columns)."""
    means: Pixels = np.einsum("stc,st->sc", values[fields.taps], fields.shares)
    return means


def _below(at: npt.NDArray[np.float64], wavelet: Wavelet | None) -> npt.NDArray[np.float64]:
    """The integral up to `at` of the weight of a sample at 0, up to a constant."""
    if wavelet is None:
        return at.clip(-0.5, 0.5)
    s = SHARPENING[wavelet]
    return (1 + 2 * s) * _below_hat(at) - s * (_below_hat(at - 1) + _below_hat(at + 1))


def _below_hat(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The integral of the hat function, the weight of a sample in linear interpolation."""
    inside = at.clip(-1, 1)
    below: npt.NDArray[np.float64] = inside - inside * np.abs(inside) / 2
    return below
