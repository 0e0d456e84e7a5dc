"""Read TIFF of one grey page. Parsed without libtiff, because radiographs use few of its forms.

Every number in the directories is checked before memory is allocated or pixels are decoded by it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.imaging.decoders import Samples, as_bytes
from service.imaging.errors import (
    CorruptImageError,
    ImageTooLargeError,
    MultiFrameError,
    UnsupportedPixelFormatError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.exif import ORIENTATION, UPRIGHT
from service.imaging.tensor import MAX_PIXELS, check_size

STARTS = (b"II*\0", b"MM\0*")
SUBFILE, COLUMNS, ROWS, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 266, 273, 277, 278, 279
PLANAR, PREDICTOR, PALETTE, TILE_COLUMNS, TILE_ROWS = 284, 317, 320, 322, 323
TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 324, 325, 339
LONG = 4
TYPES = {1: "u1", 3: "u2", LONG: "u4"}  # BYTE, SHORT, LONG
NO_PAGE = 0b101  # bits of NewSubfileType: a thumbnail of another page, or a mask

UNCOMPRESSED, LZW, PACKBITS = 1, 5, 32773
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INDEXED = range(4)  # photometric interpretations
Decode = Callable[[bytes, int], bytes | bytearray]


def _lzw(data: bytes, size: int) -> bytes:
    """Decode LZW with libtiff, as a file of one row; imagecodecs crashes on damaged data."""
    heads = {COLUMNS: size, ROWS: 1, BITS: 8, COMPRESSION: LZW, PHOTOMETRIC: BLACK_IS_ZERO}
    heads |= {STRIP_OFFSETS: 8, STRIP_ROWS: 1, STRIP_BYTES: len(data)}
    directory = b"".join(struct.pack("<HHII", tag, LONG, 1, heads[tag]) for tag in sorted(heads))
    padded = bytes(data) + bytes(len(data) % 2)
    start = struct.pack("<4sI", STARTS[0], 8 + len(padded))
    file = start + padded + struct.pack("<H", len(heads)) + directory + bytes(4)
    with Image.open(io.BytesIO(file), formats=["TIFF"]) as row:
        return row.tobytes()


DECODERS: dict[int, Decode] = {
    LZW: _lzw,
    8: lambda data, size: imagecodecs.deflate_decode(data, out=size),
    PACKBITS: lambda data, size: imagecodecs.packbits_decode(data, out=size),
    32946: lambda data, size: imagecodecs.deflate_decode(data, out=size),
}
COMPRESSIONS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000"}
HORIZONTAL = 2  # predictor: differences from the sample to the left
# Samples per pixel, with and without transparency
CHANNELS = {WHITE_IS_ZERO: {1, 2}, BLACK_IS_ZERO: {1, 2}, RGB: {3, 4}, INDEXED: {1}}
INTEGERS = {1: "u", 2: "i", 4: "u"}  # sample formats of integers; 4 is undefined

# A radiograph has one directory, and perhaps one of a thumbnail, of some dozen entries
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000
# Strips or tiles: 40 megapixels in tiles of 32 x 32 have 41,000, which take a second
MAX_PIECES = 50_000
MAX_LZW_PIECES = 10_000  # each takes an additional 0.1 ms

Entries = dict[int, tuple[int, int, int]]  # by tag: type, count, where the values are


class Tiff(NamedTuple):
    """The values that the one page declares."""

    rows: int
    columns: int
    samples: int  # per pixel
    dtype: np.dtype[Any]  # of a sample, in the byte order of the file
    photometric: int
    orientation: int
    palette: npt.NDArray[np.uint16] | None  # (colours, 3)
    compression: int
    predictor: int
    planes: int  # planes with one sample of each pixel; 1: samples are interleaved
    tiled: bool  # false: strips, of which the last may have fewer rows
    piece: tuple[int, int]  # rows, columns of a strip or tile
    places: npt.NDArray[np.int64]  # offsets of strips or tiles
    lengths: npt.NDArray[np.int64]  # in bytes

    @property
    def grid(self) -> tuple[int, int]:
        """The number of strips or tiles down and across."""
        return -(-self.rows // self.piece[0]), -(-self.columns // self.piece[1])


def read_tiff(data: memoryview) -> Tiff:
    """Read the directories of a file, without decoding pixels.

    Raises:
        CorruptImageError: Cut off, or with too many directories, entries, strips or tiles.
        struct.error, LookupError, ValueError: The file is damaged.
        MultiFrameError: Several pages; thumbnails and masks do not count.
        UnsupportedPixelFormatError: Samples that radiographs do not use.
        UnsupportedTransferSyntaxError: A compression without a decoder here.
        ImageTooSmallError, ImageTooLargeError: By its declared size.

    References:
        TIFF 6.0, sections 2 to 8 (structure, baseline), 13 to 15 (LZW, predictor, tiles); Adobe
        Photoshop TIFF Technical Notes (deflate).
    """
    file = _File(data)
    pages = [each for each in file.directories() if not file.one(each, SUBFILE, 0) & NO_PAGE]
    if not pages:
        raise CorruptImageError("the TIFF file has no page")
    if len(pages) > 1:
        raise MultiFrameError("a TIFF file of several pages; send each radiograph by itself")
    return _page(file, pages[0])


def decode_tiff(data: memoryview, tiff: Tiff) -> Samples:
    """Decode the page, strip by strip or tile by tile.

    Memory: the samples, and those of one strip or tile twice.

    Returns:
        (rows, columns) or (rows, columns, samples) of 8 or 16 bits.

    Raises:
        CorruptImageError: A strip or tile is cut off.
        RuntimeError, ValueError: A strip or tile is damaged.
    """
    depth = tiff.samples // tiff.planes
    page = np.empty((tiff.planes, tiff.rows, tiff.columns, depth), tiff.dtype.newbyteorder("="))
    down, across = tiff.grid
    height, width = tiff.piece
    for number in range(tiff.planes * down * across):
        plane, rest = divmod(number, down * across)
        top, left = rest // across * height, rest % across * width
        rows = height if tiff.tiled else min(height, tiff.rows - top)
        block = _block(data, tiff, number, (rows, width, depth))
        if tiff.predictor == HORIZONTAL:
            block = np.cumsum(block, axis=1, dtype=page.dtype)
        target = page[plane, top : top + rows, left : left + width]
        target[...] = block[: target.shape[0], : target.shape[1]]
    if tiff.planes > 1:
        return np.moveaxis(page[..., 0], 0, 2)
    return page[0] if depth > 1 else page[0, ..., 0]


def _block(data: memoryview, tiff: Tiff, number: int, shape: tuple[int, ...]) -> Samples:
    place, length = int(tiff.places[number]), int(tiff.lengths[number])
    count = shape[0] * shape[1] * shape[2]
    size = count * tiff.dtype.itemsize
    if tiff.compression == UNCOMPRESSED:
        length = size  # the declared length may be wrong
    piece = data[place : place + length]
    if len(piece) < length:
        raise CorruptImageError("the TIFF file is cut off")
    if tiff.compression != UNCOMPRESSED:
        # The last strip may be coded with as many rows as the others; libtiff stops at `size`
        most = tiff.piece[0] * shape[1] * shape[2] * tiff.dtype.itemsize
        wanted = size if tiff.compression == LZW else most
        piece = memoryview(DECODERS[tiff.compression](as_bytes(piece), wanted))
        if len(piece) < size:
            raise CorruptImageError("the TIFF file is cut off within its pixels")
    return np.frombuffer(piece, tiff.dtype, count).reshape(shape)


def _page(file: _File, page: Entries) -> Tiff:
    rows, columns = file.one(page, ROWS), file.one(page, COLUMNS)
    samples = file.one(page, SAMPLES, 1)
    check_size(rows, columns, samples)
    photometric = file.one(page, PHOTOMETRIC)
    if samples not in CHANNELS.get(photometric, ()):
        raise UnsupportedPixelFormatError(
            f"a TIFF file of {samples} samples and photometric interpretation {photometric}"
        )
    dtype = _dtype(file, page)
    compression, predictor = _compression(file, page)
    planes = samples if file.one(page, PLANAR, 1) == 2 else 1
    tiled = TILE_OFFSETS in page
    if tiled:
        piece = file.one(page, TILE_ROWS), file.one(page, TILE_COLUMNS)
    else:
        piece = min(rows, file.one(page, STRIP_ROWS, rows)), columns
    if min(piece) < 1:
        raise ValueError("empty pieces")
    count = planes * -(-rows // piece[0]) * -(-columns // piece[1])
    limit = MAX_LZW_PIECES if compression == LZW else MAX_PIECES
    if count > limit:
        raise CorruptImageError(f"the TIFF file has {count} pieces; the limit is {limit}")
    if count * piece[0] * piece[1] * (samples // planes) > 2 * MAX_PIXELS:
        raise ImageTooLargeError("the tiles of the TIFF file are larger than any image")
    places = file.many(page, TILE_OFFSETS if tiled else STRIP_OFFSETS, count)
    lengths = np.zeros(count, np.int64)
    if compression != UNCOMPRESSED:
        lengths = file.many(page, TILE_BYTES if tiled else STRIP_BYTES, count)
        # Strips or tiles that share bytes could multiply the work
        if int(lengths.sum()) > len(file.data):
            raise CorruptImageError("the pieces of the TIFF file are longer than the file")
    return Tiff(
        rows=rows,
        columns=columns,
        samples=samples,
        dtype=dtype,
        photometric=photometric,
        orientation=file.one(page, ORIENTATION, UPRIGHT),
        palette=_palette(file, page, dtype) if photometric == INDEXED else None,
        compression=compression,
        predictor=predictor,
        planes=planes,
        tiled=tiled,
        piece=piece,
        places=places,
        lengths=lengths,
    )


def _compression(file: _File, page: Entries) -> tuple[int, int]:
    """How pieces are compressed, and whether by the differences of pixels."""
    compression = file.one(page, COMPRESSION, UNCOMPRESSED)
    if compression != UNCOMPRESSED and compression not in DECODERS:
        name = COMPRESSIONS.get(compression, "not known")
        raise UnsupportedTransferSyntaxError(f"TIFF compression {compression} ({name}) is not read")
    predictor = file.one(page, PREDICTOR, 1)
    if predictor not in {1, HORIZONTAL} or file.one(page, FILL_ORDER, 1) != 1:
        raise UnsupportedPixelFormatError("a TIFF predictor or order of bits that is not read")
    return compression, predictor


def _dtype(file: _File, page: Entries) -> np.dtype[Any]:
    bits, kinds = file.each(page, BITS, 1), file.each(page, SAMPLE_FORMAT, 1)
    if len(bits) != 1 or not bits <= {8, 16}:
        raise UnsupportedPixelFormatError(f"{max(bits)} bits per sample of TIFF; 8 and 16 are read")
    if len(kinds) != 1 or not kinds <= INTEGERS.keys():
        raise UnsupportedPixelFormatError("a TIFF file of samples that are no integers")
    return np.dtype(f"{file.order}{INTEGERS[kinds.pop()]}{bits.pop() // 8}")


def _palette(file: _File, page: Entries, dtype: np.dtype[Any]) -> npt.NDArray[np.uint16]:
    """The palette: (256, 3), from tables of red, green and blue with 16 bits."""
    if dtype.kind != "u" or dtype.itemsize != 1:
        raise UnsupportedPixelFormatError("a TIFF palette of other than 8 bits")
    return file.many(page, PALETTE, 3 * 256).reshape(3, 256).T.astype(np.uint16)


class _File:
    """Reads the directories of a file, and the values of their entries."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.order = "<" if bytes(data[:2]) == b"II" else ">"

    def directories(self) -> Iterator[Entries]:
        (at,) = struct.unpack_from(f"{self.order}I", self.data, 4)
        for _ in range(MAX_DIRECTORIES):
            if at == 0:
                return
            (count,) = struct.unpack_from(f"{self.order}H", self.data, at)
            if count > MAX_ENTRIES:
                raise CorruptImageError(f"a TIFF directory of {count} entries")
            found = {}
            for place in range(at + 2, at + 2 + 12 * count, 12):
                tag, kind, values = struct.unpack_from(f"{self.order}HHI", self.data, place)
                found[tag] = kind, values, place + 8
            yield found
            (at,) = struct.unpack_from(f"{self.order}I", self.data, at + 2 + 12 * count)
        raise CorruptImageError(f"the TIFF file has more than {MAX_DIRECTORIES} directories")

    def many(self, page: Entries, tag: int, count: int) -> npt.NDArray[np.int64]:
        """The first `count` values of an entry; KeyError without the entry."""
        kind, values, at = page[tag]
        dtype = np.dtype(f"{self.order}{TYPES[kind]}")
        if values < count:
            raise CorruptImageError(f"entry {tag} of the TIFF file has {values} of {count} values")
        if values * dtype.itemsize > 4:  # otherwise they are in the entry itself
            (at,) = struct.unpack_from(f"{self.order}I", self.data, at)
        return np.frombuffer(self.data, dtype, count, at).astype(np.int64)

    def one(self, page: Entries, tag: int, default: int | None = None) -> int:
        """The first value of an entry, or the default; KeyError without both."""
        if tag not in page and default is not None:
            return default
        return int(self.many(page, tag, 1)[0])

    def each(self, page: Entries, tag: int, default: int) -> set[int]:
        """The distinct values of an entry that has one value for each sample."""
        if tag not in page:
            return {default}
        return set(self.many(page, tag, min(page[tag][1], 4)).tolist())
