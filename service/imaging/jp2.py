"""JP2 and JPH files: boxes around a codestream of JPEG 2000 or HTJ2K."""

from __future__ import annotations

import struct

from service.imaging.errors import (
    CorruptImageError,
    MultiFrameError,
    UnsupportedPixelFormatError,
)
from service.imaging.frame import Stream
from service.imaging.jpeg2000 import JP2_START

MAX_BOXES = 1000  # a usual file has six or so


def unwrapped(stream: Stream) -> Stream:
    """The codestream of a JP2 or JPH file; any other stream is returned as it is.

    Raises:
        CorruptImageError: The file has no codestream.
        struct.error, ValueError: The file is damaged.
        MultiFrameError: It has several codestreams.
        UnsupportedPixelFormatError: It has a palette.

    References:
        ITU-T T.800 I.4 and I.5 (boxes), T.814 Annex D.
    """
    if bytes(stream[:8]) != JP2_START:
        return stream
    at, found = 0, []
    for _ in range(MAX_BOXES):
        if at >= len(stream):
            break
        length, kind = struct.unpack_from(">I4s", stream, at)
        start, length = at + 8, length or len(stream) - at  # 0: up to the end
        if length == 1:
            (length,), start = struct.unpack_from(">Q", stream, start), start + 8
        if at + length < start:
            raise ValueError("a box shorter than its head")
        if kind == b"jp2c":
            found.append(stream[start : at + length])
        elif kind == b"jp2h" and b"pclr" in bytes(stream[start : min(at + length, start + 2**16)]):
            raise UnsupportedPixelFormatError("a palette of JPEG 2000 is not read")
        at += length
    if len(found) > 1:
        raise MultiFrameError("a JPEG 2000 file of several pictures; send each by itself")
    if not found:
        raise CorruptImageError("the JPEG 2000 file holds no codestream")
    return found[0]
