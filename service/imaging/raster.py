"""Read image files other than DICOM: PNG, JPEG, JPEG-LS, JPEG 2000 and TIFF."""

from __future__ import annotations

import io
from collections.abc import Collection
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from service.imaging.codestream import check_work, read_frame_header
from service.imaging.decoders import (
    DECODE_ERRORS,
    Decoded,
    Decoder,
    Decoders,
    Samples,
    as_bytes,
    decode_frame,
    first_to_read,
    pillow_jpeg,
)
from service.imaging.errors import CorruptImageError, MultiFrameError, UnsupportedPixelFormatError
from service.imaging.exif import upright
from service.imaging.frame import Frame, Stream
from service.imaging.grey import grey_of_colour
from service.imaging.jp2 import unwrapped
from service.imaging.jpeg import orientation
from service.imaging.lookup import Table, grey_of_palette
from service.imaging.picture import Picture, Pixels, halvings
from service.imaging.png import Png, check_rows, decode_png, plain_file, read_chunks
from service.imaging.tensor import check_size
from service.imaging.tiff import WHITE_IS_ZERO, decode_tiff, read_tiff
from service.imaging.whole import decode_whole

Image.MAX_IMAGE_PIXELS = None  # `check_size` is the stricter limit, and raises instead of warning

RasterFormat = Literal["png", "jpeg", "jpeg-ls", "jpeg-2000", "tiff"]
NAMES = {
    "png": "PNG",
    "jpeg": "JPEG",
    "jpeg-ls": "JPEG-LS",
    "jpeg-2000": "JPEG 2000",
    "tiff": "TIFF",
}

GREY_OR_RGB, WITH_ALPHA = {1, 3}, {1, 2, 3, 4}  # samples per pixel
# Never use `convert("L")` on 16 bits: Pillow saturates values instead of scaling them
GREY_16 = {"I;16", "I;16B", "I"}


class Raster(NamedTuple):
    """A decoded file."""

    format: RasterFormat
    picture: Picture  # integers of 8 or 16 bits
    warnings: tuple[str, ...] = ()
    fallbacks: tuple[Decoder, ...] = ()  # decoders that refused it


def read_raster(data: bytes | memoryview, kind: RasterFormat, min_side: int) -> Raster:
    """Decode one file.

    Memory: for PNG three times its samples; for JPEG the samples at the reduced size, and a copy of
    the file; for TIFF the samples, and those of a strip or tile twice; for others see
    `decode_frame`.

    Args:
        data: The whole file.
        kind: From `sniff`; "jpeg" may be JPEG-LS.
        min_side: JPEG may be decoded at half, quarter or eighth size while both sides keep twice as
            many pixels, JPEG 2000 while they keep as many.

    Raises:
        CorruptImageError: Truncated or damaged.
        ColourImageError: The channels differ.
        MultiFrameError: An animated PNG, a TIFF of several pages, or several JPEG 2000 pictures.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.
        UnsupportedPixelFormatError: CMYK and other modes that radiographs do not use.
        UnsupportedTransferSyntaxError: A form of JPEG or TIFF without a decoder here.
    """
    try:
        if kind == "png":
            return _read_png(data)
        if kind == "tiff":
            return _read_tiff(memoryview(data))
        if kind == "jpeg-2000":
            return _read_jpeg_2000(data, min_side)
        return _read_jpeg(data, min_side)
    except DECODE_ERRORS as error:
        raise CorruptImageError(f"the {NAMES[kind]} file is damaged or cut off") from error


def _read_png(data: bytes | memoryview) -> Raster:
    png = read_chunks(data)
    check_size(png.rows, png.columns, png.channels)
    if png.animated:
        raise MultiFrameError("an animated PNG; send each radiograph by itself")
    found = first_to_read(_png_decoders(png), "the PNG file")
    pixels, warnings = _grey(found.samples)
    pixels, size = upright(pixels, (png.rows, png.columns), png.orientation)
    return Raster("png", Picture(pixels, size), warnings, found.fallbacks)


def _png_decoders(png: Png) -> Decoders:
    """The decoders for a PNG. Pillow reads several samples per pixel with 8 bits only."""
    decoders: Decoders = {}
    if png.plain:
        decoders["imagecodecs-png"] = lambda: decode_png(png)
    if png.bits < 16 or png.channels == 1:
        decoders["pillow-png"] = lambda: _pillow_png(png)
    return decoders


def _grey(samples: Samples) -> tuple[Pixels, tuple[str, ...]]:
    """The grey of samples, without transparency."""
    if samples.ndim == 2:
        return samples, ()
    if samples.shape[2] == 2:
        return samples[..., 0], ()
    return grey_of_colour(samples[..., :3])


def _pillow_png(png: Png) -> Samples:
    check_rows(png)
    image = Image.open(io.BytesIO(plain_file(png)), formats=["PNG"])
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16, copy=False)
    if image.mode == "P" and np.asarray(image).max() >= png.colours:
        raise ValueError("a pixel of no colour of the palette")
    return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))


def _read_jpeg(data: bytes | memoryview, min_side: int) -> Raster:
    """Read JPEG and JPEG-LS. Pillow reads JPEG of 8 bits, also colour at a reduced size."""
    frame = read_frame_header(data)
    if frame.halvings:
        check_size(frame.rows, frame.columns, frame.components)
        check_work(data, frame)
        reduce = min(frame.halvings, halvings(frame.rows, frame.columns, 2 * min_side))
        decode = partial(pillow_jpeg, frame=frame, reduce=reduce)
        samples = decode_whole(decode, as_bytes(data), frame)
    else:
        samples = _frame(data, frame, min_side, GREY_OR_RGB).samples
    pixels, warnings = _grey(samples)
    pixels, size = upright(pixels, (frame.rows, frame.columns), orientation(data))
    kind: RasterFormat = "jpeg-ls" if frame.family == "jpeg-ls" else "jpeg"
    return Raster(kind, Picture(pixels, size, lossy=kind == "jpeg"), warnings)


def _read_jpeg_2000(data: bytes | memoryview, min_side: int) -> Raster:
    """Read a codestream of JPEG 2000 or HTJ2K, or a file with one (JP2, JPH)."""
    stream = unwrapped(data)
    frame = read_frame_header(stream)
    found = _frame(stream, frame, min_side, WITH_ALPHA)
    pixels, warnings = _grey(found.samples)
    size = frame.rows, frame.columns
    picture = Picture(pixels, size, wavelet=found.wavelet, lossy=True)
    return Raster("jpeg-2000", picture, warnings, found.fallbacks)


def _frame(stream: Stream, frame: Frame, min_side: int, components: Collection[int]) -> Decoded:
    """Decode a frame; several samples per pixel are scaled to 8 or 16 bits, to compare colours."""
    if frame.components not in components or (frame.components > 1 and frame.signed):
        raise UnsupportedPixelFormatError(
            f"{frame.components} components of {frame.precision} bits are no radiograph"
        )
    if frame.precision > 16:
        raise UnsupportedPixelFormatError(f"{frame.precision} bits a sample")
    found = decode_frame(stream, min_side)
    if found.samples.ndim == 2:
        return found
    bits = 8 * found.samples.dtype.itemsize
    return found._replace(samples=found.samples << (bits - frame.precision))


def _read_tiff(data: memoryview) -> Raster:
    tiff = read_tiff(data)
    samples = decode_tiff(data, tiff)
    if tiff.palette is not None:
        green = Table(tiff.palette[:, 1], 0)
        pixels, warnings = grey_of_palette(samples, tiff.palette, green)
    else:
        pixels, warnings = _grey(samples)
    pixels, size = upright(pixels, (tiff.rows, tiff.columns), tiff.orientation)
    picture = Picture(pixels, size, inverted=tiff.photometric == WHITE_IS_ZERO)
    return Raster("tiff", picture, warnings)
