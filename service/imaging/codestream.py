"""Compressed frames: what a codestream says of itself, and the best decoder found for it.

The codestream is sniffed, because the transfer syntax of an object is sometimes wrong. Measured on
2828 x 2320 pixels of 12 bits, one core: JPEG 2000 lossless 767 ms whole, 11 ms at 1/8; lossless
JPEG 33 ms; JPEG extended 40 ms; JPEG-LS 105 ms; HTJ2K 33 ms whole, 3 ms at 1/8.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.imaging.errors import CorruptImageError, UnsupportedTransferSyntaxError
from service.imaging.tensor import check_size

JPEG_START = b"\xff\xd8\xff"
JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
JP2_START = b"\x00\x00\x00\x0cjP  "
JPEG_END = b"\xff\xd9"
JPEG_LS_FRAME = 0xF7  # SOF55
NO_FRAME_MARKERS = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC lie among the start-of-frame markers


class Frame(NamedTuple):
    """The size that a codestream declares."""

    family: str  # "jpeg", "jpeg-ls" or "jpeg-2000"
    rows: int
    columns: int
    components: int
    precision: int  # bits
    signed: bool


def read_frame_header(stream: bytes) -> Frame:
    """Read what the stream declares, allocating nothing.

    Raises:
        CorruptImageError: The header is cut off.
        UnsupportedTransferSyntaxError: Neither JPEG, JPEG-LS nor JPEG 2000.

    References:
        ITU-T T.81 B.2.2 (JPEG), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 (JPEG 2000, SIZ).
    """
    try:
        if stream.startswith(JPEG_START):
            return _jpeg_frame(stream)
        if stream.startswith(JP2_START):
            stream = stream[stream.index(JPEG_2000_START) :]
        if stream.startswith(JPEG_2000_START):
            return _jpeg_2000_frame(stream)
    except (struct.error, ValueError, IndexError):
        raise CorruptImageError("the compressed frame ends within its header") from None
    raise UnsupportedTransferSyntaxError(
        "the compressed frame is neither JPEG, JPEG-LS nor JPEG 2000"
    )


def decode_frame(stream: bytes, min_side: int) -> npt.NDArray[Any]:
    """Decode one frame, JPEG 2000 no finer than needed.

    Args:
        stream: A JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 or HTJ2K codestream.
        min_side: JPEG 2000 may be decoded at half, quarter, ... size while both sides keep this
            many pixels. Pass a large number for the full size.

    Returns:
        (rows, columns) or (rows, columns, 3), integers as coded.

    Raises:
        CorruptImageError: The stream cannot be decoded.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.
        UnsupportedTransferSyntaxError: An unknown codestream.
    """
    frame = read_frame_header(stream)
    check_size(frame.rows, frame.columns, frame.components)
    if frame.family != "jpeg-2000" and JPEG_END not in stream:
        # libjpeg would only warn and paint the rest grey; CharLS takes seconds to notice
        raise CorruptImageError("the compressed frame is cut off")
    try:
        if frame.family == "jpeg-2000":
            return _decode_jpeg_2000(stream, frame, min_side)
        decode = imagecodecs.jpegls_decode if frame.family == "jpeg-ls" else imagecodecs.jpeg_decode
        return _of_size(np.asarray(decode(stream)), frame, 0)
    except (RuntimeError, ValueError, OSError) as error:
        # imagecodecs' own errors are RuntimeErrors; the text may quote bytes, so it is not shown
        raise CorruptImageError(
            f"the {frame.family} frame cannot be decoded ({type(error).__name__})"
        ) from error


def decode_rle(stream: bytes, rows: int, columns: int, bytes_per_sample: int) -> npt.NDArray[Any]:
    """Decode one frame of RLE Lossless (PS3.5 Annex G) with one sample a pixel."""
    dtype = np.dtype(f"<u{bytes_per_sample}")
    try:
        # `out` bounds the runs: without it, 64 MB of them would become 4 GB
        values = imagecodecs.dicomrle_decode(stream, dtype, out=rows * columns * dtype.itemsize)
        return np.frombuffer(values, dtype).reshape(rows, columns)
    except (RuntimeError, ValueError) as error:
        raise CorruptImageError("the RLE frame cannot be decoded") from error


def _of_size(samples: npt.NDArray[Any], frame: Frame, reduce: int) -> npt.NDArray[Any]:
    """What was decoded, if it is what the header promised: a damaged stream may hold two frames."""
    if samples.shape[:2] != (-(-frame.rows >> reduce), -(-frame.columns >> reduce)):
        raise CorruptImageError(f"the {frame.family} frame is not of the size it declares")
    return samples


def _jpeg_frame(stream: bytes) -> Frame:
    at = 2
    while True:
        marker, length = struct.unpack_from(">xBH", stream, at)
        if marker == 0xFF:  # fill byte
            at += 1
        elif (0xC0 <= marker <= 0xCF and marker not in NO_FRAME_MARKERS) or marker == JPEG_LS_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            family = "jpeg-ls" if marker == JPEG_LS_FRAME else "jpeg"
            return Frame(family, rows, columns, components, precision, signed=False)
        else:
            at += 2 + length


def _jpeg_2000_frame(stream: bytes) -> Frame:
    x1, y1, x0, y0 = struct.unpack_from(">4I", stream, 8)
    components, depth = struct.unpack_from(">HB", stream, 40)
    return Frame("jpeg-2000", y1 - y0, x1 - x0, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def _decode_jpeg_2000(stream: bytes, frame: Frame, min_side: int) -> npt.NDArray[Any]:
    halvings = max(0, (min(frame.rows, frame.columns) // min_side).bit_length() - 1)
    for reduce in range(halvings, 0, -1):
        try:
            return _centred(_open_jpeg_2000(stream, frame, reduce), reduce)
        except (OSError, ValueError):
            continue  # a stream with fewer wavelet levels refuses: one level finer
    return _open_jpeg_2000(stream, frame, 0)


def _centred(values: npt.NDArray[Any], reduce: int) -> npt.NDArray[Any]:
    """Move reduced samples to the centres of the blocks that they stand for.

    The low-pass sample k of a wavelet lies on pixel k * 2**reduce (T.800 F.3), the first of its
    block, so a reduced picture is off by up to half a sample: enough to move a PFI by 0.01.
    """
    shift = np.float32((1 - 2.0**-reduce) / 2)  # in samples
    moved = values.astype(np.float32)
    moved[:-1] += shift * (moved[1:] - moved[:-1])
    moved[:, :-1] += shift * (moved[:, 1:] - moved[:, :-1])
    return np.rint(moved).astype(values.dtype)


def _open_jpeg_2000(stream: bytes, frame: Frame, reduce: int) -> npt.NDArray[Any]:
    image = Image.open(io.BytesIO(stream), formats=["JPEG2000"])
    image.reduce = reduce  # type: ignore[assignment, method-assign]  # the plugin's own attribute
    samples = _of_size(np.asarray(image), frame, reduce)
    if image.mode not in {"L", "I;16"}:
        return samples
    # Pillow scales to the full 8 or 16 bits and adds half the range to signed samples: undo both
    values = samples >> (samples.dtype.itemsize * 8 - frame.precision)
    return values.astype(np.int32) - (1 << (frame.precision - 1)) if frame.signed else values
