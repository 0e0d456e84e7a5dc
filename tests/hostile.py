"""Files of right structure and hostile numbers; `service/fuzz.py --structured` reads them.

Mutations of real files seldom reach these: a decoder must believe a header before it can be made to
allocate, to loop or to recurse by it. Sizes are such that an honest image of them, whatever its
bytes, is decoded in less time than a case may take; see `FULL_SIDES`.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

import imagecodecs
import numpy as np
from images import radiograph
from PIL import Image
from pydicom import uid

SIDES = [32, 33, 64, 255, 256, 1000, 1024, 3000, 3700, 4096, 6400, 6476, 20000, 65535]
# JPEG 2000 that cannot be decoded smaller takes a second for five megapixels of noise
FULL_SIDES = [32, 33, 64, 255, 256, 1000, 1024, 2000]
BYTES = [0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255]
WORDS = [0, 1, 2, 20, 100, 255, 256, 1000, 32767, 32768, 65534, 65535]
LENGTHS = [0, 1, 8, 64, 1000, 4096, 2**16, 2**20, 2**22, 2**24]


def body(rng: random.Random, longest: int = 2**25) -> bytes:
    """Bytes of any length, but seldom many."""
    length = min(longest, rng.choice(LENGTHS + LENGTHS[:6] * 3))
    pattern = rng.choice([b"\0", b"\x80", b"\xff", b"\xff\0", b"\xff\x7f", b"\x01\x80", None, None])
    return rng.randbytes(length) if pattern is None else pattern * (length // len(pattern))


def sides(rng: random.Random, choices: list[int]) -> tuple[int, int]:
    """Rows and columns, most often of a size that is read."""
    rows, columns = rng.choice(choices), rng.choice(choices)
    if rows * columns > 40 * 2**20 and rng.random() < 0.9:
        rows = max(32, 40 * 2**20 // columns)
    return rows, columns


def maybe(rng: random.Random, share: float, make: Callable[[], bytes]) -> bytes:
    """What it makes, or nothing."""
    return make() if rng.random() < share else b""


# JPEG 2000


def marker(code: int, data: bytes = b"") -> bytes:
    """A segment of JPEG 2000 or JPEG."""
    return struct.pack(">HH", code, (len(data) + 2) & 0xFFFF) + data


def cod(rng: random.Random, levels: int) -> bytes:
    """A COD segment: mostly small precincts or blocks, or many layers."""
    layers = rng.choice([1, 1, 1, 2, 20, 50, rng.choice(WORDS)])
    order = rng.choice([*range(5), *range(5), 255])
    head = struct.pack(">BHB", order, layers, rng.choice([0, 0, 1]))
    return marker(0xFF52, style(rng, levels, head))


def style(rng: random.Random, levels: int, head: bytes = b"") -> bytes:
    """What COD and COC share, with what stands between."""
    has_precincts = rng.random() < 0.4
    block = bytes(rng.choice([4, 4, 4, 4, 3, 3, 2, 0, rng.choice(BYTES)]) for _ in range(2))
    passes = rng.choice([0, 0, 0, 0x40, 0x40, 1, 4, 5, 63, 255])
    data = bytes([has_precincts | rng.choice([0, 0, 2, 4])]) + head
    data += bytes([levels]) + block + bytes([passes, rng.choice([0, 1])])
    side = rng.choice([lambda: 0x77, lambda: 0x88, lambda: 0x55, lambda: rng.randrange(256)])
    return data + (bytes(side() for _ in range(min(33, levels + 1))) if has_precincts else b"")


def qcd(rng: random.Random, levels: int) -> bytes:
    """A QCD segment of one byte a band."""
    exponent = rng.choice([8, 12, 16, 31])
    return marker(
        0xFF5C, bytes([rng.choice([0x20, 0x40, 0xE0])] + [exponent << 3] * (3 * levels + 1))
    )


def extras(rng: random.Random, levels: int) -> bytes:
    """Other segments of a header, hostile ones among them."""
    change = struct.pack(
        ">BBHBBB", 0, 0, rng.choice(WORDS), rng.choice(BYTES), 255, rng.randrange(5)
    )
    return b"".join(
        (
            maybe(rng, 0.06, lambda: cod(rng, levels)),
            maybe(
                rng,
                0.06,
                lambda: marker(0xFF53, bytes([rng.choice([0, 0, 1])]) + style(rng, levels)),
            ),
            maybe(rng, 0.03, lambda: marker(0xFF5E, bytes([0, 0, rng.choice(BYTES)]))),
            maybe(rng, 0.06, lambda: marker(0xFF5F, change * rng.choice([1, 2, 31, 1000]))),
            maybe(rng, 0.03, lambda: marker(0xFF64, b"\0\1x") * rng.choice([1, 1000, 200_000])),
            maybe(rng, 0.03, lambda: marker(0xFF55, rng.randbytes(60_000)) * rng.choice([1, 300])),
            # Of a length that its reader may or may not follow, with a COD within
            maybe(rng, 0.03, lambda: marker(0xFF30, cod(rng, levels))),
            maybe(
                rng, 0.03, lambda: marker(rng.choice([0xFF60, 0xFF61, 0xFF58]), rng.randbytes(500))
            ),
            maybe(
                rng,
                0.03,
                lambda: marker(rng.choice([0xFF74, 0xFF75, 0xFF77]), rng.randbytes(50)) * 9,
            ),
        )
    )


def tile_parts(rng: random.Random, levels: int, tiles: int) -> bytes:
    """Some, with headers of their own, and lengths that may be wrong."""
    parts = []
    count = rng.choice([1, 1, 1, 2, min(tiles, 12_000), 300, 100_000])
    long = body(rng)
    for index in range(count):
        data = long if index == 0 else b"\0"
        head = extras(rng, levels) if count < 10 and rng.random() < 0.3 else b""
        length = 14 + len(head) + len(data)
        if rng.random() < 0.02:
            length = rng.choice([0, 12, 13, length - 1, length + 1, 2**32 - 1])
        tile = (
            rng.choice([index % max(1, tiles), 0, 65535]) if count < 10 else index % max(1, tiles)
        )
        sot = struct.pack(">HIBB", tile & 0xFFFF, length, index // max(1, tiles) & 255, 0)
        parts.append(marker(0xFF90, sot) + head + b"\xff\x93" + data)
    return b"".join(parts)


def wavelet_stream(rng: random.Random) -> tuple[bytes, int, int, int]:
    """A JPEG 2000 or HTJ2K codestream; its rows, columns and components."""
    levels = rng.choice([0, 1, 5, 5, 5, 5, 5, 6, 6, 32, rng.choice([33, 255])])
    start = rng.choice([0] * 9 + [1, 1000, 2**31 - 70_000])
    rows, columns = sides(rng, SIDES if levels >= 5 and start == 0 else FULL_SIDES)
    components = rng.choice([1] * 9 + [2, 3, 3, 4, 5, 16384])
    if components > 1:
        rows, columns = min(rows, 1000), min(columns, 1000)
    tile = rng.choice([max(rows, columns)] * 3 + [2**31 - 1, 1024, 512, 256, 200, 64, 31, 1])
    numbers = columns + start, rows + start, start, start, tile, tile, *[rng.choice([start, 0])] * 2
    depth = bytes(
        [
            rng.choice([7, 11, 11, 15, 15, 15, 0x8B, rng.choice([25, 37, 255])]),
            *rng.choice([(1, 1)] * 40 + [(2, 1), (255, 255), (0, 0)]),
        ]
    )
    stream = b"\xff\x4f" + marker(
        0xFF51, struct.pack(">H8IH", 0, *numbers, components) + depth * components
    )
    stream += cod(rng, levels) + qcd(rng, levels) + extras(rng, levels)
    tiles = -(-columns // tile) * -(-rows // tile)
    stream += tile_parts(rng, levels, tiles) + rng.choice([b"\xff\xd9", b""])
    return stream, rows, columns, components


def wavelet(rng: random.Random) -> bytes:
    """The same in an object."""
    stream, rows, columns, components = wavelet_stream(rng)
    syntax = rng.choice([uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2K])
    return in_object(rng, stream, rows, columns, syntax, samples=3 if components == 3 else 1)


def wavelet_file(rng: random.Random) -> bytes:
    """The same as a file, in boxes or not."""
    stream = wavelet_stream(rng)[0]
    if rng.random() < 0.5:
        return stream
    empty = struct.pack(">I4s", 8, b"free")
    long = struct.pack(">I4sQ", 1, b"uuid", rng.choice([0, 16, 2**40, 2**64 - 1]))
    before = rng.choice([b"", empty, empty * 100_000, long, body(rng), empty * 5 + stream[:64]])
    length = rng.choice([0, 8 + len(stream), 7, 2**32 - 1])
    start = b"\0\0\0\x0cjP  \r\n\x87\n"
    return start + before + struct.pack(">I4s", length, b"jp2c") + stream


# JPEG and JPEG-LS


@lru_cache
def tables() -> bytes:
    """DQT and DHT segments that libjpeg writes."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", quality=50)
    data, at, found = buffer.getvalue(), 2, b""
    while data[at + 1] != 0xDA:
        length = 2 + struct.unpack_from(">H", data, at + 2)[0]
        found += data[at : at + length] if data[at + 1] in {0xDB, 0xC4} else b""
        at += length
    return found


def runs_of_ends() -> bytes:
    """Huffman tables in which one bit says that the next 16,384 blocks have nothing more."""
    return b"".join(
        marker(0xFFC4, bytes([kind | number, 1, 1, *bytes(14), 0xE0 if kind else 0, 1]))
        for kind in (0, 0x10)
        for number in (0, 1)
    )


def sos(names: bytes, first: int, last: int, bits: int) -> bytes:
    """A scan header."""
    chosen = b"".join(bytes([name, 0]) for name in names)
    return marker(0xFFDA, bytes([len(names)]) + chosen + bytes([first, last, bits]))


def scans(rng: random.Random, code: int, components: int) -> bytes:
    """One scan, or far too many."""
    names, found = bytes(range(1, components + 1)), []
    count = rng.choice([1, 2, 10, 10, 60, 60, 300, 2000, 9000])
    if code not in {0xC2, 0xCA} and rng.random() < 0.8:
        count = 1
    first = rng.choice([0, 1])
    progressive = sos(
        b"\1", first, rng.choice([first, 5, 63]), rng.choice([0, 1, 0x10, 0x21, 0xFF])
    )
    once = {
        0xC3: sos(names, rng.randrange(9), 0, 0),
        0xF7: sos(names, rng.choice([0, 0, 2, 255]), rng.randrange(3), 0),
    }
    whole = once.get(code, sos(names, 0, 63, 0))
    for index in range(count):
        head = progressive if index and code in {0xC2, 0xCA} else whole
        data = body(rng) if index == 0 else rng.choice([b"", b"\0", bytes(100), b"\xff\xd0" * 9])
        found.append(head + data)
    return b"".join(found)


def jpeg_stream(rng: random.Random, code: int, rows: int, columns: int, components: int) -> bytes:
    """SOI to EOI."""
    precision = rng.choice([8] * 9 + [12, 12, 16, 2, 255])
    factors = [
        rng.choice([0x11] * 20 + [0x22, 0x22, 0x41, 0x14, 0x44, 0x00, 0xF1])
        for _ in range(components)
    ]
    fields = b"".join(bytes([name + 1, factor, 0]) for name, factor in enumerate(factors))
    frame = marker(
        0xFF00 | code, struct.pack(">BHHB", precision, rows, columns, components) + fields
    )
    presets = struct.pack(">B5H", 1, *(rng.choice(WORDS) for _ in range(5)))
    return b"".join(
        (
            b"\xff\xd8",
            maybe(rng, 0.2, lambda: metadata(rng)),
            tables() if rng.random() < 0.8 else runs_of_ends(),
            maybe(
                rng,
                0.05,
                lambda: marker(0xFFDE, struct.pack(">BHHB", 8, rows, columns, 1) + b"\1\x11\0"),
            ),
            frame,
            maybe(rng, 0.05, lambda: frame),
            maybe(rng, 0.3, lambda: marker(0xFFDD, struct.pack(">H", rng.choice([1, 1, *WORDS])))),
            maybe(rng, 0.3 if code == 0xF7 else 0, lambda: marker(0xFFF8, presets)),
            scans(rng, code, components),
            maybe(rng, 0.1, lambda: marker(0xFFDC, struct.pack(">H", 65535))),
            rng.choice([b"\xff\xd9"] * 9 + [b""]),
        )
    )


def jpeg_object(rng: random.Random) -> bytes:
    """Any process of JPEG, in an object."""
    code = rng.choice([0xC0, 0xC1, 0xC2, 0xC3, 0xF7] * 4 + [0xC9, 0xCA, 0xC5, 0xCD])
    rows, columns = sides(rng, SIDES)
    components = rng.choice([1] * 6 + [3, 3, 3, 4, 5, 255])
    if components > 1:
        rows, columns = min(rows, 3600), min(columns, 3600)
    stream = jpeg_stream(rng, code, rows, columns, components)
    syntax = rng.choice(
        [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless]
    )
    return in_object(rng, stream, rows, columns, syntax, samples=3 if components == 3 else 1)


def jpeg_file(rng: random.Random) -> bytes:
    """The same as a file."""
    rows, columns = sides(rng, SIDES)
    components = rng.choice([1, 1, 1, 3, 3, 4])
    if components > 1:
        rows, columns = min(rows, 3600), min(columns, 3600)
    code = rng.choice([0xC0, 0xC1, 0xC2, 0xC2, 0xC3, 0xF7])
    return jpeg_stream(rng, code, rows, columns, components)


def metadata(rng: random.Random) -> bytes:
    """EXIF, MPF and ICC: directories of many entries that share their bytes, many segments."""
    count = rng.choice([1, 100, 5000])
    entries = b"".join(
        struct.pack(
            "<HHII",
            rng.choice([0x0112, 0x9286, index & 0xFFFF]),
            7,
            rng.choice([1, 60_000, 2**32 - 1]),
            rng.choice([8, 2**32 - 1]),
        )
        for index in range(count)
    )
    directory = (
        struct.pack("<2sHIH", b"II", 42, rng.choice([8, 4, 2**32 - 1]), rng.choice([count, 65535]))
        + entries
    )
    kinds = {0xFFE1: b"Exif\0\0", 0xFFE2: b"MPF\0"}
    code = rng.choice([0xFFE1, 0xFFE1, 0xFFE2, 0xFFED])
    return marker(
        code, (kinds.get(code, b"Photoshop 3.0\08BIM") + directory)[:65_000]
    ) * rng.choice([1, 1, 20, 900])


# PNG


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache
def bomb(megabytes: int) -> bytes:
    """Zeros, inflated a thousand times as many."""
    return zlib.compress(bytes(megabytes * 2**20), 9)


def png_file(rng: random.Random) -> bytes:
    """Any colour type and depth, with texts and profiles that inflate, and wrong numbers."""
    rows, columns = sides(rng, SIDES)
    bits, colour = rng.choice(
        [(8, 0), (16, 0), (1, 0), (4, 0), (8, 3), (1, 3), (8, 2), (16, 2), (16, 6), (8, 4), (3, 9)]
    )
    channels = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    if channels > 1:
        rows, columns = min(rows, 3200), min(columns, 3200)
    size = min(rows * (1 + (columns * bits * channels + 7) // 8), 2**27)
    header = struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, rng.choice([0, 0, 1]))
    texts = [b"x\0\0" + bomb(60), b"x\0" + bomb(1), b"x\0\1\0\0\0" + bomb(8)]
    pixels = rng.choice(
        [
            zlib.compress(bytes(size), 1),
            zlib.compress(bytes(size // 2 + 1), 1),
            bomb(120),
            body(rng),
        ]
    )
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            maybe(
                rng,
                0.2,
                lambda: (
                    chunk(rng.choice([b"zTXt", b"iCCP", b"iTXt"]), rng.choice(texts))
                    * rng.choice([1, 500])
                ),
            ),
            maybe(rng, 0.5, lambda: chunk(b"PLTE", bytes(range(256)) * rng.choice([1, 3, 9]))),
            maybe(rng, 0.2, lambda: chunk(b"tRNS", bytes(rng.choice([1, 2, 6, 256, 1000])))),
            maybe(
                rng,
                0.1,
                lambda: chunk(b"acTL", struct.pack(">II", rng.choice([0, 1, 2**32 - 1]), 0)),
            ),
            chunk(b"IDAT", pixels) if rng.random() < 0.9 else chunk(b"IDAT", b"") * 60_000,
            maybe(rng, 0.1, lambda: chunk(b"IHDR", header)),
            chunk(b"IEND", b""),
        )
    )


# TIFF

TIFF_KINDS = {1: "B", 3: "H", 4: "I"}
ODD = [0, 1, 2, 7, 255, 65535, 2**31, 2**32 - 1]


def tiff_entries(rng: random.Random, length: int) -> dict[int, list[int]]:
    """What a page of any form says, right but for one or two entries."""
    rows, columns = sides(rng, SIDES)
    bits, samples, photometric = rng.choice(
        [(8, 1, 1), (16, 1, 0), (16, 1, 1), (8, 3, 2), (8, 1, 3)]
    )
    if samples > 1:
        rows, columns = min(rows, 3600), min(columns, 3600)
    tiled = rng.random() < 0.5
    height, width = rng.choice([16, 32, 256, 1024, 1, 65535]), rng.choice([16, 32, 256, 65535, 1])
    if not tiled:
        height, width = rng.choice([1, 1, 8, rows, 2**32 - 1]), columns
    planes = rng.choice([1, 1, samples])
    count = planes * -(-rows // max(1, min(rows, height))) * -(-columns // max(1, width))
    count = min(count, rng.choice([10, 60_000, 60_000]))
    each = length // max(1, count)
    each = rng.choice([each] * 8 + [length, 1, 0, 2**32 - 1])
    return {
        254: [0],
        256: [columns],
        257: [rows],
        258: [bits] * samples,
        259: [rng.choice([1, 1, 5, 5, 5, 8, 32773, 7])],
        262: [photometric],
        277: [samples],
        284: [2 if planes > 1 else 1],
        317: [rng.choice([1, 2])],
        339: [1] * samples,
        **({322: [width], 323: [height]} if tiled else {278: [height]}),
        **({320: [0, 65535] * 384} if photometric == 3 else {}),
        324 if tiled else 273: [rng.choice([8, 8, length])] * count,
        325 if tiled else 279: [each] * count,
    }


def tiff_file(rng: random.Random) -> bytes:
    """Strips and tiles that share their bytes, directories that follow themselves, lies."""
    data = rng.choice(
        [body(rng), bomb(120), bomb(1), b"\x80\x40\x20\x10\x08\x04\x02\x01\0" * 2**17]
    )
    entries = tiff_entries(rng, len(data))
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
        entries[rng.choice(list(entries))] = [rng.choice(ODD)] * rng.choice([0, 1, 1, 4])
    at = 8 + len(data)
    directory, beyond = b"", b""
    for tag, values in entries.items():
        kind = 4 if max(values, default=0) > 65535 or rng.random() < 0.5 else 3
        packed = struct.pack(f"<{len(values)}{TIFF_KINDS[kind]}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", at + len(beyond)), beyond + packed
        said = rng.choice([len(values)] * 400 + [2**32 - 1, 0])
        kind = rng.choice([kind] * 600 + [2, 5, 13, 99])
        directory += struct.pack("<HHI", tag, kind, said) + packed.ljust(4, b"\0")
    start = at + len(beyond)
    count = rng.choice([len(entries)] * 40 + [0, 65535])
    after = rng.choice([0] * 40 + [start, 8, 2**32 - 1])
    head = struct.pack("<2sHI", b"II", 42, rng.choice([start] * 40 + [0, 4, 2**32 - 1]))
    return head + data + beyond + struct.pack("<H", count) + directory + struct.pack("<I", after)


# DICOM

LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One element of explicit VR, little endian; its length may be a lie."""
    said = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return (
        head
        + (struct.pack("<2xI", said) if vr in LONG else struct.pack("<H", said & 0xFFFF))
        + value
    )


def item(value: bytes, length: int | None = None) -> bytes:
    """One item, of undefined length if that is 2**32 - 1."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def pixel_module(
    rng: random.Random, rows: int, columns: int, samples: int, bits: int
) -> dict[int, tuple[bytes, bytes]]:
    """The attributes of PS3.3 C.7.6.3, right but for one in a few."""
    short: Callable[[int], bytes] = struct.Struct("<H").pack
    allocated = 8 if bits <= 8 else 16
    module = {
        0x00280002: (b"US", short(samples)),
        0x00280004: (b"CS", b"MONOCHROME2 " if samples == 1 else b"RGB "),
        0x00280006: (b"US", short(0)),
        0x00280008: (b"IS", b"1 "),
        0x00280010: (b"US", short(min(rows, 65535))),
        0x00280011: (b"US", short(min(columns, 65535))),
        0x00280100: (b"US", short(allocated)),
        0x00280101: (b"US", short(bits)),
        0x00280102: (b"US", short(bits - 1)),
        0x00280103: (b"US", short(0)),
    }
    if rng.random() < 0.1:
        tag = rng.choice(list(module))
        texts = [
            b"PALETTE COLOR ",
            b"YBR_FULL",
            b"YBR_FULL_422",
            b"",
            b"\xff" * 64,
            b"1e400 ",
            b"-1",
            b"9" * 1000,
        ]
        values = [short(rng.choice([*WORDS, 3, 32])), b"", short(1) * 3, bytes(4), *texts]
        module[tag] = rng.choice([b"US", b"CS", b"IS", b"SS", b"UL", b"UN"]), rng.choice(values)
    if rng.random() < 0.15:
        padding = rng.choice([0x00280120, 0x00280121, 0x00281052, 0x00281053])
        module[padding] = (
            rng.choice([b"US", b"DS"]),
            rng.choice([short(0), short(65535), b"0 ", b"1e400 ", b"nan ", b""]),
        )
    return module


def tables_of(rng: random.Random) -> dict[int, tuple[bytes, bytes]]:
    """A Modality LUT or a palette, with descriptors that lie."""
    count = rng.choice([0, 1, 256, 4096, 65535])
    said = struct.pack(
        "<3H", rng.choice([count, *WORDS]), rng.choice([0, 0, 65535]), rng.choice([8, 12, 16, 99])
    )
    data = rng.randbytes(rng.choice([count, 2 * count, 2**17, 2**17 + 2, 2**24]) & ~1)
    if rng.random() < 0.5:
        entry = item(element(0x00283002, b"US", said) + element(0x00283006, b"OW", data))
        return {0x00283000: (b"SQ", entry * rng.choice([1, 1, 2]))}
    grey = rng.random() < 0.7
    found = {0x00281101 + colour: (b"US", said) for colour in range(3)}
    kind = rng.choice([0x00281201, 0x00281201, 0x00281221])  # the latter segmented
    found |= {kind + colour: (b"OW", data if grey else data[::-1]) for colour in range(3)}
    return found | {0x00280004: (b"CS", b"PALETTE COLOR ")}


def nested(rng: random.Random) -> bytes:
    """Sequences that hold sequences, or very many elements."""
    depth, value = rng.choice([1, 50, 99, 101, 5000, 300_000]), b""
    if depth < 5000:
        for _ in range(depth):
            value = element(
                0x00081140, b"SQ", item(value, rng.choice([None, None, len(value) + 8]))
            )
        return value
    start = element(0x00081140, b"SQ", b"", 2**32 - 1) + item(b"", 2**32 - 1)
    return rng.choice(
        [
            start * depth,
            element(0x00080050, b"SH", b"") * depth,
            element(0x00090010, b"UN", b"BOBO", 2**31),
            (element(0x00091001, b"UN", b"", 2**32 - 1) + item(b"", 2**32 - 1)) * depth,
        ]
    )


def part_10(
    rng: random.Random, module: dict[int, tuple[bytes, bytes]], syntax: str, last: bytes
) -> bytes:
    """A file of these attributes, deflated if its syntax says so."""
    meta = element(0x00020010, b"UI", syntax.encode() + b"\0" * (len(syntax) % 2))
    module = {0x00080016: (b"UI", uid.ComputedRadiographyImageStorage.encode() + b"\0"), **module}
    body_ = maybe(rng, 0.05, lambda: nested(rng))
    body_ += b"".join(element(tag, *module[tag]) for tag in sorted(module)) + last
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        body_ = packer.compress(body_) + packer.flush()
    whole = bytes(128) + b"DICM" + meta + body_
    return rng.choice([whole] * 8 + [whole[132:], body_])  # without preamble, or File Meta


def in_object(
    rng: random.Random,
    stream: bytes,
    rows: int,
    columns: int,
    syntax: str,
    samples: int = 1,
    bits: int | None = None,
) -> bytes:
    """A compressed frame, in one or many fragments, within an object."""
    bits = bits or (8 if samples == 3 else rng.choice([8, 12, 16]))
    module = pixel_module(rng, rows, columns, samples, bits)
    if rng.random() < 0.05:
        module |= tables_of(rng)
    step = len(stream) or 1
    if rng.random() < 0.1:
        step = max(rng.choice([2, 1000]), len(stream) // 60_000)
    odd = struct.pack("<II", 0, rng.choice([8, 2**32 - 8])), bytes(4000)
    table = rng.choice([b"", bytes(4)] * 9 + list(odd))
    pieces = [table, *(stream[at : at + step] for at in range(0, len(stream), step))]
    end = rng.choice([struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)] * 20 + [b""])
    return part_10(
        rng,
        module,
        syntax,
        element(0x7FE00010, b"OB", b"".join(map(item, pieces)) + end, 2**32 - 1),
    )


def native(rng: random.Random) -> bytes:
    """Uncompressed and deflated, grey, in colour and by tables."""
    rows, columns = sides(rng, SIDES)
    samples, bits = rng.choice([(1, 12), (1, 8), (1, 16), (3, 8), (3, 16)])
    if samples == 3:
        rows, columns = min(rows, 3600), min(columns, 3600)
    module = pixel_module(rng, rows, columns, samples, bits)
    if samples == 3 and rng.random() < 0.5:
        module[0x00280004] = b"CS", rng.choice([b"YBR_FULL", b"YBR_FULL_422", b"YBR_ICT ", b"RGB "])
    if rng.random() < 0.4:
        module |= tables_of(rng)
    size = rows * columns * samples * (1 if bits == 8 else 2)
    pixels = np.resize(radiograph(64, 64).view(np.uint8).ravel(), min(size, 2**26)).tobytes()
    pixels = rng.choice([pixels, pixels, pixels[:-1], body(rng)])
    syntax = rng.choice([uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
    length = rng.choice([None, None, None, 2**32 - 1, 2**31])
    return part_10(rng, module, syntax, element(0x7FE00010, b"OW", pixels, length))


def rle(rng: random.Random) -> bytes:
    """Segments that overlap, and runs of nothing."""
    rows, columns = sides(rng, SIDES)
    samples = rng.choice([1, 1, 3])
    if samples == 3:
        rows, columns = min(rows, 3600), min(columns, 3600)
    bits = rng.choice([8, 12])
    right = samples if bits == 8 else 2 * samples
    count = rng.choice([right] * 9 + [0, 15, 16, 2**32 - 1])
    offsets = [rng.choice([64, 64, 65, 0, 1000, 2**32 - 1]) for _ in range(15)]
    run = rng.choice([b"\x81\x07", b"\x80", b"\x7f" + bytes(128), b"\0\1", rng.randbytes(1000)])
    data = run * rng.choice([1, 1000, 2**18])
    stream = struct.pack("<16I", count, *offsets) + data
    return in_object(rng, stream, rows, columns, uid.RLELossless, samples, bits)


@lru_cache
def honest() -> dict[str, bytes]:
    """Noise, of which every bit is coded, in the codecs that take the longest for it."""
    noise = np.random.default_rng(0).integers(0, 2**16, (1024, 1024)).astype(np.uint16)
    return {
        uid.JPEG2000Lossless: bytes(
            imagecodecs.jpeg2k_encode(noise, 0, codecformat="j2k", reversible=True)
        ),
        uid.HTJ2KLossless: bytes(imagecodecs.htj2k_encode(noise, reversible=True)),
        uid.JPEGLosslessSV1: bytes(imagecodecs.jpeg_encode(noise, lossless=True, bitspersample=16)),
        uid.JPEGLSLossless: bytes(imagecodecs.jpegls_encode(noise >> 4)),
    }


def other_header(rng: random.Random) -> bytes:
    """A coded picture under a header that says something else."""
    syntax = rng.choice(sorted(honest()))
    data = bytearray(honest()[syntax])
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(4, 120)
        data[at] = rng.choice([*BYTES, data[at] ^ 1 << rng.randrange(8)])
    return in_object(rng, bytes(data), 1024, 1024, syntax)


KINDS: list[Callable[[random.Random], bytes]] = [
    *(wavelet, wavelet, wavelet, jpeg_object, jpeg_object, jpeg_file, png_file),
    *(native, rle, other_header, tiff_file, tiff_file, wavelet_file),
]


def hostile(case: int, seed: int) -> tuple[str, bytes]:
    """The case of this number: its kind, and the file."""
    make = KINDS[case % len(KINDS)]
    return make.__name__, make(random.Random(f"structured {seed} {case}"))
