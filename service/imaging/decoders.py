"""Decode one compressed frame with the fastest decoder that reads it.

Measured on 2828 x 2320 pixels of 12 bits, one core: JPEG 2000 616 ms whole, 14 ms at 1/8, and
HTJ2K 101 and 3 ms (OpenJPEG; OpenJPH takes 31 and 0.5 ms, but accepts truncated frames, and hangs
on some damaged ones); lossless JPEG 32 ms (libjpeg-turbo; 67 ms with liblj92, 98 ms with
jpegsof3); JPEG extended 38 ms; JPEG-LS 97 ms (CharLS); RLE 8 ms (imagecodecs; 93 ms with pydicom).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.imaging.codestream import check_work, read_frame_header, without_wrapper
from service.imaging.errors import CorruptImageError, UnsupportedPixelFormatError
from service.imaging.frame import Frame, Stream
from service.imaging.jpeg import without_metadata, without_zero
from service.imaging.openjpeg import MAX_BITS, OPENJPEG, decode_openjpeg
from service.imaging.picture import Wavelet, halvings
from service.imaging.tensor import check_size
from service.imaging.whole import decode_whole

Samples = npt.NDArray[Any]
Decoder = Literal[
    "imagecodecs-jpeg",
    "imagecodecs-jpeg-2000",
    "imagecodecs-jpeg-ls",
    "imagecodecs-png",
    "openjpeg",
    "pillow-jpeg",
    "pillow-jpeg-2000",
    "pillow-png",
]
Decoders = dict[Decoder, Callable[[], Samples]]  # in the order in which they are tried

# Errors of Pillow and imagecodecs (its own are RuntimeErrors) on damaged images, found by fuzzing.
# Their texts may quote bytes of the image, so they are not shown
DECODE_ERRORS = (
    AssertionError,
    RuntimeError,
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


RLE_HEADER = 64  # bytes
RGB_COMPONENTS = 3


class Decoded(NamedTuple):
    """Samples as coded, and how they were decoded."""

    samples: Samples  # (rows, columns) or (rows, columns, channels)
    wavelet: Wavelet | None = None  # the samples are its low-pass band, smaller than the image
    fallbacks: tuple[Decoder, ...] = ()  # decoders that refused the frame
    frame: Frame | None = None  # from the codestream's header, if there is one


def first_to_read(decoders: Decoders, what: str) -> Decoded:
    """Try the decoders in order.

    Raises:
        CorruptImageError: No decoder can read it.
        UnsupportedPixelFormatError: `decoders` is empty.
    """
    refused: list[Decoder] = []
    for name, decode in decoders.items():
        try:
            return Decoded(decode(), fallbacks=tuple(refused))
        except DECODE_ERRORS as error:
            refused.append(name)
            cause = error
    if not refused:
        raise UnsupportedPixelFormatError(f"no decoder for {what}")
    raise CorruptImageError(f"{what} is damaged or cut off") from cause


def decode_frame(stream: Stream, min_side: int, *, raw_colour: bool = False) -> Decoded:
    """Decode one frame, at a reduced size if possible.

    Memory: the samples; for JPEG 2000 and HTJ2K three times their bytes, and a copy of the frame;
    for JPEG that Pillow reads, also a copy of the frame.

    Args:
        stream: A JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 or HTJ2K codestream.
        min_side: JPEG 2000 and HTJ2K may be decoded at half, quarter, ... size while both sides
            keep this many pixels, and grey JPEG of 8 bits while they keep twice as many, because
            its smaller pixels are means of blocks. Pass a large number for the full size.
        raw_colour: Keep the components of a JPEG as coded; otherwise YCbCr becomes RGB, if the
            markers, or their absence, say that it is YCbCr.

    Returns:
        Integers as coded.

    Raises:
        CorruptImageError: The stream cannot be decoded, or would take too much time or memory (see
            `check_work`).
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.
        UnsupportedPixelFormatError, UnsupportedTransferSyntaxError: See `read_frame_header`.
    """
    frame = read_frame_header(stream)
    # Samples of more than 16 bits take twice the memory
    check_size(frame.rows, frame.columns, frame.components * (1 + (frame.precision > MAX_BITS)))
    # The wrapper may declare another size than the codestream, which is the one that was checked
    stream = without_wrapper(stream)
    check_work(stream, frame)
    decoders = _decoders(as_bytes(stream), frame, min_side, raw_colour=raw_colour)
    found = first_to_read(decoders, f"the {frame.family} frame")
    wavelet = frame.wavelet if len(found.samples) < frame.rows else None
    return found._replace(wavelet=wavelet, frame=frame)


def decode_rle(stream: Stream, shape: tuple[int, ...], bytes_per_sample: int) -> Samples:
    """Decode one frame of RLE Lossless (PS3.5 Annex G).

    Args:
        stream: The frame.
        shape: (rows, columns), or (samples, rows, columns) for colour by plane.
        bytes_per_sample: 1, 2 or 4.

    Raises:
        CorruptImageError: It is damaged, or has another number of segments.
    """
    dtype = np.dtype(f"<u{bytes_per_sample}")
    size = math.prod(shape) * bytes_per_sample
    places = _segments(stream, math.prod(shape[:-2]) * bytes_per_sample)
    try:
        # `out` bounds the runs: without it, 64 MB of them would become 4 GB
        values = imagecodecs.dicomrle_decode(as_bytes(stream), dtype, out=size)
        return np.frombuffer(values, dtype).reshape(shape)
    except (RuntimeError, ValueError):
        return _longer_segments(stream, places, shape, bytes_per_sample)


def _longer_segments(
    stream: Stream, places: list[int], shape: tuple[int, ...], bytes_per_sample: int
) -> Samples:
    """Decode segments that have surplus bytes, but less than a row.

    One surplus byte is common: some encoders pad the bytes before coding, and not after it.
    """
    *planes, rows, columns = shape
    count = rows * columns
    found = np.empty((math.prod(planes), count, bytes_per_sample), np.uint8)
    for index, (start, end) in enumerate(pairwise(places)):
        try:
            segment = imagecodecs.packbits_decode(
                as_bytes(stream[start:end]), out=count + columns - 1
            )
        except (RuntimeError, ValueError) as error:
            raise CorruptImageError("the RLE frame cannot be decoded") from error
        if len(segment) < count:
            raise CorruptImageError("the RLE frame cannot be decoded: a segment is cut off")
        plane, byte = divmod(index, bytes_per_sample)  # the highest byte comes first
        found[plane, :, bytes_per_sample - 1 - byte] = np.frombuffer(segment, np.uint8, count)
    return found.view(f"<u{bytes_per_sample}").reshape(shape)


def is_rle(stream: Stream) -> bool:
    """Whether a frame begins with an RLE header: at most 15 segments, the first after it."""
    count, first = struct.unpack("<2L", bytes(stream[:8]).ljust(8, b"\0"))
    return count in range(1, 16) and first == RLE_HEADER


def _segments(stream: Stream, segments: int) -> list[int]:
    """Offsets of the segments and of the end (PS3.5 G.5), which imagecodecs does not check."""
    head = bytes(stream[:RLE_HEADER])
    if len(head) < RLE_HEADER:
        raise CorruptImageError("the RLE frame is cut off within its header")
    count, *offsets = struct.unpack("<16L", head)
    if count != segments:
        raise CorruptImageError(f"the RLE frame holds {count} segments, and not {segments}")
    places = [*offsets[:count], len(stream)]
    if places[0] < RLE_HEADER or places != sorted(places):
        raise CorruptImageError("the segments of the RLE frame do not follow each other")
    return places


def as_bytes(stream: Stream) -> bytes:
    """The same object, typed as bytes: imagecodecs accepts any buffer, but its stubs do not."""
    return cast("bytes", stream)


def _decoders(stream: bytes, frame: Frame, min_side: int, *, raw_colour: bool) -> Decoders:
    """One decoder for each format: a second one would use the same library, and fail as slowly."""
    if frame.family == "jpeg-ls":
        return {"imagecodecs-jpeg-ls": lambda: _of_size(_jpeg_ls(stream), frame)}
    if frame.family == "jpeg":
        return _jpeg_decoder(stream, frame, min_side, raw_colour=raw_colour)
    reduce = min(frame.halvings, halvings(frame.rows, frame.columns, min_side))
    if frame.components > 1 or frame.precision > MAX_BITS:
        return {"imagecodecs-jpeg-2000": lambda: _of_size(imagecodecs.jpeg2k_decode(stream), frame)}
    if library := OPENJPEG:
        return {"openjpeg": lambda: decode_openjpeg(library, stream, frame, reduce)}
    return {"pillow-jpeg-2000": lambda: _pillow_jpeg_2000(stream, frame, reduce)}


def _jpeg_decoder(stream: bytes, frame: Frame, min_side: int, *, raw_colour: bool) -> Decoders:
    """Both use libjpeg-turbo; Pillow reads 8 bits only, but can decode at reduced size."""
    wanted = halvings(frame.rows, frame.columns, 2 * min_side) if frame.components == 1 else 0
    if reduce := min(frame.halvings, wanted):
        small = partial(pillow_jpeg, frame=frame, reduce=reduce)
        return {"pillow-jpeg": lambda: decode_whole(small, stream, frame)}
    # From RGB to RGB, libjpeg converts nothing, whatever the components mean
    colour = "RGB" if raw_colour and frame.components == RGB_COMPONENTS else None
    large = partial(_jpeg, frame=frame, colour=colour)
    return {"imagecodecs-jpeg": lambda: decode_whole(large, stream, frame)}


def _jpeg(stream: bytes, frame: Frame, colour: str | None) -> Samples:
    samples = imagecodecs.jpeg8_decode(stream, colorspace=colour, outcolorspace=colour)
    return _of_size(samples, frame)


def _jpeg_ls(stream: bytes) -> Samples:
    """Decode JPEG-LS; some encoders write a padding zero byte before the end marker.

    That byte could be data, so it is removed only if CharLS refuses the whole stream.
    """
    try:
        return imagecodecs.jpegls_decode(stream)
    except imagecodecs.JpeglsError:
        shorter = without_zero(stream)
        if len(shorter) == len(stream):
            raise
        return imagecodecs.jpegls_decode(shorter)


def _of_size(samples: Samples, frame: Frame, reduce: int = 0) -> Samples:
    """Check that the samples have the declared size: a damaged stream may hold two frames."""
    if samples.shape[:2] != (-(-frame.rows >> reduce), -(-frame.columns >> reduce)):
        raise ValueError("not of the size that it declares")
    return samples


def pillow_jpeg(stream: Stream, frame: Frame, reduce: int) -> Samples:
    """Decode a JPEG of 8 bits at half, quarter or eighth size.

    Raises:
        UnsupportedPixelFormatError: CMYK and other modes that radiographs do not use.
    """
    image = Image.open(io.BytesIO(without_metadata(stream)), formats=["JPEG"])
    if image.mode not in {"L", "RGB"}:
        raise UnsupportedPixelFormatError(f"a JPEG in {image.mode}; radiographs are grey")
    image.draft(None, (frame.columns >> reduce, frame.rows >> reduce))
    return _of_size(np.asarray(image), frame, reduce)


def _pillow_jpeg_2000(stream: bytes, frame: Frame, reduce: int) -> Samples:
    image = Image.open(io.BytesIO(stream), formats=["JPEG2000"])
    # Pillow rounds a reduced size, which JPEG 2000 rounds up, and so refuses three images of five
    columns, rows = (-(-side >> reduce) << reduce for side in image.size)
    image._size = columns, rows  # noqa: SLF001
    image.reduce = reduce  # type: ignore[assignment, method-assign]  # the plugin's own attribute
    samples = _of_size(np.asarray(image), frame, reduce)
    if image.mode not in {"L", "I;16"}:
        return samples
    # Pillow scales to 8 or 16 bits, and adds half the range to signed samples: undo both
    values = samples >> (samples.dtype.itemsize * 8 - frame.precision)
    return values.astype(np.int32) - (1 << (frame.precision - 1)) if frame.signed else values
