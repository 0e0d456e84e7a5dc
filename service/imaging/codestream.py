"""Headers of compressed frames, which are read before anything is decoded.

The codec is recognised by content, because the transfer syntax of an object may be wrong.
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
    """Read the header of a codestream, without allocating memory for pixels.

    Raises:
        CorruptImageError: The header is cut off, or too long.
        UnsupportedPixelFormatError: More than MAX_COMPONENTS, or components of different sizes.
        UnsupportedTransferSyntaxError: Neither JPEG, JPEG-LS nor JPEG 2000, or a JPEG process
            without a decoder here.

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
    """Whether a stream begins like JPEG, JPEG-LS or JPEG 2000."""
    return bytes(stream[:8]).startswith((jpeg.START, jpeg2000.START, jpeg2000.JP2_START))


def check_work(stream: Stream, frame: Frame) -> None:
    """Refuse a frame that would take a decoder too much time or memory, by its headers alone.

    Args:
        stream: The codestream, without a wrapper.
        frame: From `read_frame_header`, with a checked size.

    Raises:
        CorruptImageError: It exceeds a limit of `jpeg` or `jpeg2000`; or it is a JPEG without its
            end, which decoders notice late or never.
    """
    _read((jpeg2000 if frame.family == "jpeg-2000" else jpeg).check_work, stream)


def without_wrapper(stream: Stream) -> Stream:
    """The codestream of a JP2 file; PS3.5 forbids this wrapper, but some encoders write it.

    Raises:
        ValueError: The wrapper holds no codestream.
    """
    if stream[:8] == jpeg2000.JP2_START:
        return stream[bytes(stream).index(jpeg2000.START) :]
    return stream


def _read(reader: Callable[[Stream], Result], stream: Stream) -> Result:
    try:
        return reader(stream)
    except (struct.error, ValueError, LookupError, StopIteration):
        raise CorruptImageError("the compressed frame is cut off within its header") from None
