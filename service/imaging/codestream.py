"""Compressed frames: what a codestream says of itself, before anything is decoded.

The codestream is sniffed, because the transfer syntax of an object is sometimes wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from service.imaging import jpeg, jpeg2000
from service.imaging.errors import CorruptImageError, UnsupportedTransferSyntaxError
from service.imaging.frame import Frame, Stream

Result = TypeVar("Result")


def read_frame_header(stream: Stream) -> Frame:
    """Read what the stream declares, allocating nothing.

    Raises:
        CorruptImageError: The header is cut off or endless.
        UnsupportedPixelFormatError: More than MAX_COMPONENTS, or a component of another size.
        UnsupportedTransferSyntaxError: Neither JPEG, JPEG-LS nor JPEG 2000, or a process of JPEG
            that no decoder here reads.

    References:
        ITU-T T.81 B.2.2 (JPEG), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 and A.6.1 (JPEG 2000, SIZ and
        COD).
    """
    start = bytes(stream[:8])
    if start.startswith(jpeg.START):
        return _read(jpeg.read_header, stream)
    if start.startswith((jpeg2000.START, jpeg2000.JP2_START)):
        return _read(lambda whole: jpeg2000.read_header(without_wrapper(whole)), stream)
    raise UnsupportedTransferSyntaxError(
        "the compressed frame is neither JPEG, JPEG-LS nor JPEG 2000"
    )


def is_codestream(stream: Stream) -> bool:
    """Whether it begins as `read_frame_header` expects."""
    return bytes(stream[:8]).startswith((jpeg.START, jpeg2000.START, jpeg2000.JP2_START))


def check_work(stream: Stream, frame: Frame) -> None:
    """Refuse what would keep a decoder busy or fill memory, by the headers alone.

    Args:
        stream: The codestream, without a wrapper.
        frame: What it declares, of a size that has been checked.

    Raises:
        CorruptImageError: More of something than `jpeg` and `jpeg2000` allow for; or a JPEG without
            its end, which decoders notice late or never.
    """
    _read((jpeg2000 if frame.family == "jpeg-2000" else jpeg).check_work, stream)


def without_wrapper(stream: Stream) -> Stream:
    """The codestream of a JP2 file: PS3.5 forbids the wrapper, but some encoders leave it on.

    Raises:
        ValueError: There is none in it.
    """
    if stream[:8] == jpeg2000.JP2_START:
        return stream[bytes(stream).index(jpeg2000.START) :]
    return stream


def _read(reader: Callable[[Stream], Result], stream: Stream) -> Result:
    try:
        return reader(stream)
    except (struct.error, ValueError, LookupError, StopIteration):
        raise CorruptImageError("the compressed frame is cut off within its header") from None
