"""Compressed frames: what a codestream says of itself, before anything is decoded.

The codestream is sniffed, because the transfer syntax of an object is sometimes wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from service.imaging.errors import CorruptImageError, UnsupportedTransferSyntaxError
from service.imaging.tensor import Wavelet

Stream = bytes | memoryview
Family = Literal["jpeg", "jpeg-ls", "jpeg-2000"]  # the last with HTJ2K

JPEG_START = b"\xff\xd8\xff"
JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
JP2_START = b"\x00\x00\x00\x0cjP  "
JPEG_END = b"\xff\xd9"
TAIL = 4096  # bytes; what follows the end is padding, as a rule one byte
DHT, JPG, DAC, SOS = 0xC4, 0xC8, 0xCC, 0xDA
LOSSLESS, PROGRESSIVE, JPEG_LS = 0xC3, 0xC2, 0xF7  # SOF3, SOF2, SOF55
FRAMES = (frozenset(range(0xC0, 0xD0)) - {DHT, JPG, DAC}) | {JPEG_LS}
BARE = frozenset(range(0xD0, 0xDA))  # RSTm, SOI, EOI have no length
COD = 0xFF52
DCT_HALVINGS = 3  # libjpeg decodes blocks of 8 x 8 as 4 x 4, 2 x 2 or 1
# No encoder comes near, and each one costs a damaged or hostile frame time
MAX_SEGMENTS = 10_000
MAX_SCANS = 100  # of a progressive JPEG


class Frame(NamedTuple):
    """What a codestream declares."""

    family: Family
    rows: int
    columns: int
    components: int
    precision: int  # bits
    signed: bool
    halvings: int  # how often the size may be halved by decoding less of it
    tiles: int = 1
    wavelet: Wavelet | None = None


def read_frame_header(stream: Stream) -> Frame:
    """Read what the stream declares, allocating nothing.

    Raises:
        CorruptImageError: The header is cut off or endless.
        UnsupportedTransferSyntaxError: Neither JPEG, JPEG-LS nor JPEG 2000.

    References:
        ITU-T T.81 B.2.2 (JPEG), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 and A.6.1 (JPEG 2000, SIZ and
        COD).
    """
    start = bytes(stream[:8])
    try:
        if start.startswith(JPEG_START):
            return _jpeg_frame(stream)
        if start == JP2_START or start.startswith(JPEG_2000_START):
            return _jpeg_2000_frame(without_wrapper(stream))
    except (struct.error, ValueError, IndexError):
        raise CorruptImageError("the compressed frame is cut off within its header") from None
    raise UnsupportedTransferSyntaxError(
        "the compressed frame is neither JPEG, JPEG-LS nor JPEG 2000"
    )


def without_wrapper(stream: Stream) -> Stream:
    """The codestream of a JP2 file: PS3.5 forbids the wrapper, but some encoders leave it on.

    Raises:
        ValueError: There is none in it.
    """
    if stream[:8] == JP2_START:
        return stream[bytes(stream).index(JPEG_2000_START) :]
    return stream


def is_whole(stream: Stream) -> bool:
    """Whether a JPEG has its end: decoders notice late or never that it has not."""
    return JPEG_END in bytes(stream[-TAIL:]) or JPEG_END in bytes(stream)


def _jpeg_frame(stream: Stream) -> Frame:
    found: Frame | None = None
    for marker, at in _jpeg_segments(stream):
        if marker == SOS:
            break
        if marker not in FRAMES:
            continue
        precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
        if marker == PROGRESSIVE and bytes(stream).count(b"\xff\xda") > MAX_SCANS:
            raise CorruptImageError(f"the JPEG has more than {MAX_SCANS} scans")
        dct = marker not in {LOSSLESS, JPEG_LS} and precision == 8
        found = Frame(
            "jpeg-ls" if marker == JPEG_LS else "jpeg",
            rows,
            columns,
            components,
            precision,
            signed=False,
            halvings=DCT_HALVINGS if dct else 0,
        )
    if found is None:
        raise ValueError("no frame before the first scan")
    return found


def _jpeg_segments(stream: Stream) -> Iterator[tuple[int, int]]:
    """Markers and where they stand, up to where the stream is no longer made of segments."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        start, marker, length = struct.unpack_from(">BBH", stream, at)
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if start != 0xFF or marker < 0xC0 or marker in BARE:
            raise ValueError("no segment")
        yield marker, at
        at += 2 + length
    raise CorruptImageError(f"the JPEG has more than {MAX_SEGMENTS} segments")


def _jpeg_2000_frame(stream: Stream) -> Frame:
    length, x1, y1, x0, y0, tile_columns, tile_rows = struct.unpack_from(">H2x6I", stream, 4)
    components, depth = struct.unpack_from(">HB", stream, 40)
    levels, reversible = _transform(stream, 4 + length)
    return Frame(
        "jpeg-2000",
        y1 - y0,
        x1 - x0,
        components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        # A picture that does not begin at the origin halves to another size, and shifted
        halvings=0 if x0 or y0 else levels,
        tiles=x1 * y1 // max(1, tile_columns * tile_rows),
        wavelet="5/3" if reversible else "9/7",
    )


def _transform(stream: Stream, at: int) -> tuple[int, bool]:
    """How often a wavelet was applied, and whether the reversible one, by the main header's COD."""
    for _ in range(MAX_SEGMENTS):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == COD:
            levels, transform = struct.unpack_from(">B3xB", stream, at + 9)
            return levels, transform == 1
        at += 2 + length
    raise CorruptImageError(f"the JPEG 2000 header has more than {MAX_SEGMENTS} segments")
