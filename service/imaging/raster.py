"""PNG and JPEG files."""

from __future__ import annotations

import io
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.imaging.codestream import check_work, read_frame_header
from service.imaging.decoders import (
    DECODE_ERRORS,
    Decoder,
    Decoders,
    Samples,
    as_bytes,
    first_to_read,
    halvings,
    pillow_jpeg,
)
from service.imaging.errors import CorruptImageError, MultiFrameError
from service.imaging.grey import grey_of_colour
from service.imaging.jpeg import orientation
from service.imaging.png import Png, decode_png, plain_file, read_chunks
from service.imaging.tensor import Pixels, check_size
from service.imaging.whole import decode_whole

Image.MAX_IMAGE_PIXELS = None  # `check_size` is the stricter limit, and raises instead of warning

# Never `convert("L")` on 16 bits: Pillow saturates them instead of scaling
GREY_16 = {"I;16", "I;16B", "I"}
# By EXIF orientation: quarter turns to the left, and whether left and right are exchanged then
TURNS = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


class Raster(NamedTuple):
    """A decoded file."""

    pixels: Pixels  # (rows, columns) uint8 or uint16, bone bright; JPEG perhaps at half, ... size
    size: tuple[int, int]  # rows, columns of the image itself
    warnings: tuple[str, ...]
    fallbacks: tuple[Decoder, ...]  # decoders that refused it


def read_raster(data: bytes | memoryview, kind: str, min_side: int) -> Raster:
    """Decode one PNG or JPEG file.

    A PNG needs three times its samples; a JPEG those of the reduced size, and a copy of the file.

    Args:
        data: The whole file.
        kind: "png" or "jpeg", as sniffed.
        min_side: JPEG may be decoded at half, quarter or eighth size while both sides keep twice as
            many pixels.

    Raises:
        CorruptImageError: Truncated or damaged.
        ColourImageError: The channels differ.
        MultiFrameError: An animated PNG.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.
        UnsupportedPixelFormatError: CMYK and other modes that no radiograph has.
    """
    try:
        return _read_png(data) if kind == "png" else _read_jpeg(data, min_side)
    except DECODE_ERRORS as error:
        raise CorruptImageError(
            f"the {kind.upper()} file is damaged or cut off ({type(error).__name__})"
        ) from error


def _read_png(data: bytes | memoryview) -> Raster:
    png = read_chunks(data)
    check_size(png.rows, png.columns, png.channels)
    if png.animated:
        raise MultiFrameError("an animated PNG; send each radiograph by itself")
    decoders: Decoders = {"imagecodecs-png": lambda: decode_png(png)} if png.plain else {}
    decoders["pillow-png"] = lambda: _pillow_png(png)
    found = first_to_read(decoders, "the PNG file")
    pixels, warnings = _grey(found.samples)
    return Raster(pixels, (png.rows, png.columns), warnings, found.fallbacks)


def _grey(samples: Samples) -> tuple[Pixels, tuple[str, ...]]:
    """Leave transparency out, and colour where there is none."""
    if samples.ndim == 2:
        return samples, ()
    if samples.shape[2] == 2:
        return samples[..., 0], ()
    return grey_of_colour(samples[..., :3])


def _pillow_png(png: Png) -> Samples:
    image = Image.open(io.BytesIO(plain_file(png)), formats=["PNG"])
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16, copy=False)
    return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))


def _read_jpeg(data: bytes | memoryview, min_side: int) -> Raster:
    frame = read_frame_header(data)
    check_size(frame.rows, frame.columns, frame.components)
    check_work(data, frame)
    reduce = min(frame.halvings, halvings(frame.rows, frame.columns, 2 * min_side))
    decode = partial(pillow_jpeg, frame=frame, reduce=reduce)
    pixels, warnings = _grey(decode_whole(decode, as_bytes(data), frame))
    turns, mirrored = TURNS.get(orientation(data), (0, False))
    size = (frame.columns, frame.rows) if turns % 2 else (frame.rows, frame.columns)
    pixels = np.rot90(pixels, turns)
    return Raster(pixels[:, ::-1] if mirrored else pixels, size, warnings, ())
