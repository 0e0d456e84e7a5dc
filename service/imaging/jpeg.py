"""JPEG and JPEG-LS: read headers, and estimate the work of libjpeg-turbo or CharLS.

libjpeg processes the whole picture for each scan, however little it codes, so the cost of all scans
is limited first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.imaging.errors import (
    CorruptImageError,
    UnsupportedPixelFormatError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.exif import UPRIGHT, exif_orientation
from service.imaging.frame import MAX_COMPONENTS, Frame, Stream
from service.imaging.tensor import MAX_PIXELS

START = b"\xff\xd8\xff"
DHT, RST, SOI, EOI, SOS, DRI, DHP = 0xC4, range(0xD0, 0xD8), 0xD8, 0xD9, 0xDA, 0xDD, 0xDE
APP0, APP1, APP14, APP15, COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC2, 0xC3, 0xF7  # SOF2, SOF3, SOF55
FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE, LOSSLESS, JPEG_LS})
UNREAD = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, DHP), "hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB), "arithmetic-coded JPEG"),
    **dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical, arithmetic-coded JPEG"),
}
BARE = frozenset(RST) | {SOI}  # markers without a length
DCT_HALVINGS = 3  # libjpeg decodes blocks of 8 x 8 as 4 x 4, 2 x 2 or 1
ENDS_SCAN = np.array([code >= 0xC0 and code not in RST and code != 0xFF for code in range(256)])
LOST_BYTES = 64  # consecutive zeros that count as lost data
OTHER = 0b01010101  # the bits of a byte that `with_other_end` changes
WINDOWS = range(2**8, 2**18)  # bytes searched at a time: few at first, because scans may be short
EXIF = b"Exif\0\0"

# A photograph has some hundreds of segments, of 64 kB each, for its profiles and previews
MAX_SEGMENTS = 10_000
# Costs of a progressive JPEG in nanoseconds of one core of 2.5 GHz, measured with libjpeg-turbo 3:
# a scan takes 10,000 for its tables, 50 for each restart, and for each block 25 for its mean, or
# else 5, and one for each coefficient. For 40 megapixels, the usual ten scans take 0.2 s, and 64
# scans with four passes over each coefficient 0.4 s. The limit is 0.46 s, and `decode_whole` may
# decode twice. In addition, 64 MiB of coded bits take half a second.
MAX_SCAN_COST = 700 * MAX_PIXELS // 64
MEAN_COST, BLOCK_COST, RESTART_COST, SCAN_COST = 25, 5, 50, 10_000


class Component(NamedTuple):
    """One component of a frame."""

    across: int  # sampling factors
    down: int


class Scan(NamedTuple):
    """One SOS segment."""

    components: bytes  # their identifiers
    first: int  # index of the first coefficient; 0 is the mean of a block
    last: int
    interval: int  # MCUs between restarts; 0: no restarts
    start: int  # offset of its data
    end: int


def read_header(stream: Stream) -> Frame:
    """Read the frame header; see `read_frame_header`."""
    marker, at, _ = next(
        segment for segment in _segments(stream) if segment[0] in FRAMES or segment[0] == SOS
    )
    if marker == SOS:
        raise ValueError("no frame before the first scan")
    precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
    if components > MAX_COMPONENTS:
        raise UnsupportedPixelFormatError(f"a JPEG of {components} components")
    if not rows:
        raise UnsupportedTransferSyntaxError(
            "the JPEG says its height behind its scan (DNL), which no decoder here reads"
        )
    dct = marker not in {LOSSLESS, JPEG_LS} and precision == 8
    return Frame(
        "jpeg-ls" if marker == JPEG_LS else "jpeg",
        rows,
        columns,
        components,
        precision,
        signed=False,
        halvings=DCT_HALVINGS if dct else 0,
    )


def check_work(stream: Stream) -> None:
    """Limit the cost of all scans, up to the end of the image.

    Raises:
        CorruptImageError: The image has no end, more than one frame, or more or costlier scans than
            any encoder writes.

    References:
        ITU-T T.81 B.2 (marker segments), G.1.1 (only a progressive frame codes a component in
        several scans); T.87 C.2.
    """
    frames, scans = _frames_and_scans(stream)
    if len(frames) != 1:
        raise CorruptImageError("the JPEG has more than one frame")
    marker, count = stream[frames[0] + 1], stream[frames[0] + 9]
    if marker == PROGRESSIVE:
        blocks = _blocks(stream, frames[0])
        if sum(_cost(scan, blocks) for scan in scans) > MAX_SCAN_COST:
            raise CorruptImageError(f"the JPEG has {len(scans)} scans, which would take too long")
        coded = len({name for scan in scans if not scan.first for name in scan.components})
    else:
        coded = sum(len(scan.components) for scan in scans)
    if coded > count:
        raise CorruptImageError("the JPEG has more than one scan of a component")
    if coded < count:
        raise CorruptImageError("the JPEG is cut off: a component lacks its scan")
    if marker != JPEG_LS:
        _check_restarts(stream, frames[0], scans)


def is_sequential(stream: Stream) -> bool:
    """Whether one scan holds all components, so that missing data affect the last pixels."""
    count = 0
    for marker, at, _ in _segments(stream):
        if marker in FRAMES:
            count = 0 if marker == PROGRESSIVE else stream[at + 9]
        elif marker == SOS:
            return stream[at + 4] == count
    return False


def with_more(stream: Stream, more: bytes) -> bytes:
    """The stream with bytes appended to the data of its last scan, which decoders should ignore."""
    end = _frames_and_scans(stream)[1][-1].end
    return b"".join([stream[:end], more, stream[end:]])


def has_lost_bytes(stream: Stream) -> bool:
    """Whether the last scan has a stretch of zeros. Data of a flat picture may have one as well."""
    words = np.frombuffer(stream, np.uint64, len(stream) // 8)
    zeros, whole = np.flatnonzero(words == 0), LOST_BYTES // 8 - 1  # words, wherever it begins
    starts = zeros[: 1 - whole][zeros[whole - 1 :] - zeros[: 1 - whole] == whole - 1]
    if not len(starts):
        return False
    scan = _frames_and_scans(stream)[1][-1]
    return bool(((8 * starts >= scan.start) & (8 * (starts + whole) <= scan.end)).any())


def with_other_end(stream: Stream, count: int) -> bytes:
    """The stream with changed bits in the last `count` bytes of its last scan."""
    scan = _frames_and_scans(stream)[1][-1]
    at = max(scan.start, scan.end - count)
    # Bytes at FF stay: a changed marker, or a changed stuffing zero, would shift later data
    other = bytes(
        byte if 0xFF in (byte, before, byte ^ OTHER) else byte ^ OTHER
        for before, byte in pairwise(bytes(stream[at - 1 : scan.end]))
    )
    return b"".join([stream[:at], other, stream[scan.end :]])


def without_zero(stream: Stream) -> bytes:
    """The stream without a zero byte at the end of its last scan, if there is one."""
    end = _frames_and_scans(stream)[1][-1].end
    return b"".join([stream[: end - (stream[end - 1] == 0)], stream[end:]])


def without_metadata(stream: Stream) -> bytes:
    """The stream without metadata, except JFIF and Adobe, which describe the components.

    Pillow parses EXIF, MPF, ICC and Photoshop segments, and hostile ones take it seconds.
    """
    parts, start = [], 0
    for marker, at, length in _segments(stream):
        if marker == SOS:
            break
        if (APP0 < marker <= APP15 and marker != APP14) or marker == COM:
            parts.append(stream[start:at])
            start = at + 2 + length
    return b"".join([*parts, stream[start:]])


def orientation(stream: Stream) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none. XMP is ignored, as by viewers."""
    for marker, at, length in _segments(stream):
        if marker == SOS:
            break
        if marker == APP1 and bytes(stream[at + 4 : at + 10]) == EXIF:
            return exif_orientation(bytes(stream[at + 10 : at + 2 + length]))
    return UPRIGHT


def _segments(stream: Stream) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and length of each segment; the last is the end of the image."""
    data = np.frombuffer(stream, np.uint8)
    at = 2
    for _ in range(MAX_SEGMENTS):
        start, marker = struct.unpack_from(">BB", stream, at)
        if start == marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == EOI and start == 0xFF:
            yield marker, at, 0
            return
        if marker in UNREAD:
            raise UnsupportedTransferSyntaxError(f"{UNREAD[marker]} is not read")
        (length,) = struct.unpack_from(">H", stream, at + 2)
        if start != 0xFF or marker < 0xC0 or marker in BARE:
            raise ValueError("no segment")
        yield marker, at, length
        at += 2 + length
        if marker == SOS:
            at = _end_of_scan(data, at)
    raise CorruptImageError(f"the JPEG has more than {MAX_SEGMENTS} segments")


def _end_of_scan(data: npt.NDArray[np.uint8], at: int) -> int:
    """The offset of the next marker that is no restart. JPEG-LS may also have FF before bytes
    below 80 hexadecimal, which is not a marker.
    """
    size = WINDOWS.start
    while at + 1 < len(data):
        window = data[at : at + size + 1]
        starts = np.flatnonzero(window[:-1] == 0xFF)
        ends = starts[ENDS_SCAN[window[starts + 1]]]
        if len(ends):
            return at + int(ends[0])
        at += size
        size = min(2 * size, WINDOWS.stop)
    raise CorruptImageError("the compressed frame is cut off")


def _frames_and_scans(stream: Stream) -> tuple[list[int], list[Scan]]:
    """The offsets of frame headers, and the scans."""
    interval, frames, scans = 0, [], []
    for (marker, at, _), (_, following, _) in pairwise(_segments(stream)):
        if marker in FRAMES:
            frames.append(at)
        elif marker == DRI:
            (interval,) = struct.unpack_from(">H", stream, at + 4)
        elif marker == SOS:
            scans.append(_scan(stream, at, interval, following))
    return frames, scans


def _scan(stream: Stream, at: int, interval: int, end: int) -> Scan:
    names = bytes(stream[at + 5 : at + 5 + 2 * stream[at + 4] : 2])
    first, last = stream[at + 5 + 2 * len(names)], stream[at + 6 + 2 * len(names)]
    (length,) = struct.unpack_from(">H", stream, at + 2)
    return Scan(names, first, last, interval, at + 2 + length, end)


def _check_restarts(stream: Stream, frame: int, scans: list[Scan]) -> None:
    """Refuse a frame that lacks restart markers, and so the data between them."""
    for scan in scans:
        if scan.interval:
            data = np.frombuffer(stream, np.uint8)[scan.start : scan.end]
            after = data[1:][data[:-1] == 0xFF]
            found = np.count_nonzero((after >= RST.start) & (after < RST.stop))
            if found < -(-_units(stream, frame, scan) // scan.interval) - 1:
                raise CorruptImageError("the JPEG is cut off: it lacks restart markers")


def _units(stream: Stream, frame: int, scan: Scan) -> int:
    """The number of MCUs of a scan (T.81 A.2): blocks or samples, or groups of them."""
    side = 1 if stream[frame + 1] == LOSSLESS else 8
    if len(scan.components) == 1:
        return _blocks(stream, frame, side)[scan.components[0]]
    rows, columns, count = struct.unpack_from(">HHB", stream, frame + 5)
    factors = stream[frame + 11 : frame + 11 + 3 * count : 3]
    across, down = (max(each) for each in zip(*(divmod(f, 16) for f in factors), strict=True))
    if min(across, down) < 1:
        raise ValueError("no such components")
    across, down = side * across, side * down
    units: int = -(-columns // across) * -(-rows // down)
    return units


def _blocks(stream: Stream, at: int, side: int = 8) -> dict[int, int]:
    """The number of blocks of `side` pixels of each component, by its identifier."""
    rows, columns, count = struct.unpack_from(">HHB", stream, at + 5)
    fields = [stream[at + 10 + 3 * i : at + 12 + 3 * i] for i in range(count)]
    sampling = {name: Component(factors >> 4, factors & 15) for name, factors in fields}
    across, down = (max(factors) for factors in zip(*sampling.values(), strict=True))
    if len(sampling) < count or min(across, down) < 1:
        raise ValueError("no such components")
    return {
        name: -(-columns * own.across // (side * across)) * -(-rows * own.down // (side * down))
        for name, own in sampling.items()
    }


def _cost(scan: Scan, blocks: dict[int, int]) -> int:
    """The cost of a scan in nanoseconds; KeyError if the frame lacks a component of it."""
    count = sum(blocks[name] for name in scan.components)
    block = BLOCK_COST + max(0, scan.last - scan.first) if scan.first else MEAN_COST + scan.last
    restarts = count // scan.interval if scan.interval else 0
    return SCAN_COST + count * block + restarts * RESTART_COST
