"""PNG and JPEG files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from service.imaging.errors import CorruptImageError, MultiFrameError, UnsupportedPixelFormatError
from service.imaging.grey import grey_of_colour
from service.imaging.tensor import Pixels, check_size

# What Pillow's PNG and JPEG plugins raise on damaged files, found by fuzzing
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    zlib.error,
)

Image.MAX_IMAGE_PIXELS = None  # `check_size` is the stricter limit, and raises instead of warning


def read_raster(data: bytes, kind: str) -> tuple[Pixels, tuple[str, ...]]:
    """Decode one PNG or JPEG file.

    Args:
        data: The whole file.
        kind: "png" or "jpeg", as sniffed.

    Returns:
        (rows, columns) uint8 or uint16, bone bright, and warnings.

    Raises:
        CorruptImageError: Truncated or damaged.
        ColourImageError: The channels differ.
        MultiFrameError: An animated PNG.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.
        UnsupportedPixelFormatError: CMYK and other modes that no radiograph has.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=[kind.upper()])
        check_size(image.height, image.width, len(image.getbands()))
        if kind == "png" and getattr(image, "n_frames", 1) > 1:
            raise MultiFrameError("an animated PNG; send each radiograph by itself")
        image.load()
        if kind == "jpeg":
            image = ImageOps.exif_transpose(image)
        return _grey(image)
    except DECODE_ERRORS as error:
        raise CorruptImageError(
            f"the {kind.upper()} file is damaged or cut off ({type(error).__name__})"
        ) from error


def _grey(image: Image.Image) -> tuple[Pixels, tuple[str, ...]]:
    """Never `convert("L")` on 16 bits: Pillow saturates them instead of scaling."""
    if image.mode in {"L", "1"}:
        return np.asarray(image.convert("L")), ()
    if image.mode in {"I;16", "I;16B", "I"}:
        return np.asarray(image).astype(np.uint16, copy=False), ()
    if image.mode == "LA":
        return np.asarray(image.getchannel("L")), ()
    if image.mode in {"RGB", "RGBA", "P"}:
        return grey_of_colour(np.asarray(image.convert("RGB")))
    raise UnsupportedPixelFormatError(f"pixels of Pillow mode {image.mode} are no radiograph")
