"""What a decoder would do is counted from the headers; hostile streams never get to it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hostile import chunk, marker, tables
from images import CODECS, dicom, jpeg, png, radiograph
from PIL import Image
from pydicom import uid

from model_store import PreprocessSpec
from service.imaging import read_radiograph
from service.imaging.codestream import check_work, read_frame_header
from service.imaging.decoders import decode_frame
from service.imaging.errors import CorruptImageError, UnsupportedTransferSyntaxError
from service.imaging.jpeg import orientation, without_metadata
from service.imaging.jpeg2000 import LIMITS

SIDE = 6400  # a square of it is just below the largest image that is accepted
PIXELS = (radiograph(128, 96) >> 4).astype(np.uint8)
EMPTY = b"\xff\x93" + bytes(8)  # SOD, some packets


def coding(
    levels: int = 5, layers: int = 1, order: int = 0, block: int = 4, **options: int
) -> bytes:
    """What COD says, but for Scod and the precincts."""
    passes, last = options.get("passes", 0), options.get("transform", 1)
    return struct.pack(">BHBBBBBB", order, layers, 0, levels, block, block, passes, last)


def cod(precincts: bytes = b"", **options: int) -> bytes:
    return marker(0xFF52, bytes([bool(precincts)]) + coding(**options) + precincts)


def wavelet(
    *segments: bytes, side: int = SIDE, tile: int = SIDE, start: int = 0, part: bytes = b""
) -> bytes:
    """A square JPEG 2000 codestream of these segments; `part` stands in the tile-part's header."""
    numbers = side + start, side + start, start, start, tile, tile, start, start
    size = marker(0xFF51, struct.pack(">H8IH3B", 0, *numbers, 1, 7, 1, 1))
    steps = marker(0xFF5C, bytes([0x40] + [8 << 3] * 16))
    parts = b"".join(
        marker(0xFF90, struct.pack(">HIBB", index, 12 + len(part) + len(EMPTY), 0, 1))
        + part
        + EMPTY
        for index in range(min(10_000, (-(-side // tile)) ** 2))
    )
    return b"\xff\x4f" + size + b"".join(segments) + steps + parts + b"\xff\xd9"


def refusal(stream: bytes) -> str:
    frame = read_frame_header(stream)
    with pytest.raises(CorruptImageError) as refused:
        check_work(stream, frame)
    return str(refused.value)


HIDDEN = marker(0xFF30, cod(layers=65535))  # the length of a marker that OpenJPEG does not know


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (wavelet(cod(), tile=32), "tiles"),
        (wavelet(cod(block=0)), "code blocks"),
        (wavelet(cod(), part=cod(block=0)), "code blocks"),
        (wavelet(cod(), marker(0xFF53, b"\0\0" + coding(block=0)[4:])), "code blocks"),
        (wavelet(cod(), tile=64, side=SIDE, start=2**31 - 9000), "precincts"),
        (wavelet(cod(precincts=b"\x11" * 6)), "precincts"),
        (wavelet(cod(precincts=b"\x88" * 6, layers=65535)), "packets"),
        (wavelet(cod(precincts=b"\x88" * 6, layers=65535), side=1024, tile=64), "packets"),
        (wavelet(cod(), HIDDEN), "parts of code blocks"),
        (wavelet(cod(layers=65535)), "parts of code blocks"),
        (wavelet(cod(block=3, passes=4, layers=120)), "parts of code blocks"),
        (wavelet(cod(precincts=b"\x66" * 6, layers=9), marker(0xFF5F, bytes(7) * 30)), "packets"),
        (wavelet(cod(), marker(0xFF5E, b"\0\0\xff")), "bits"),
        (wavelet(cod(), part=marker(0xFF64, b"\0\1x") * LIMITS["markers"]), "segments"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_more_than_a_radiograph_needs_is_refused(stream, what):
    """Of each thing that OpenJPEG allocates or steps through, wherever the stream says so."""
    assert what in refusal(stream)


@pytest.mark.parametrize(
    "stream",
    [
        wavelet(cod()),
        wavelet(cod(block=3, precincts=b"\x77" * 6, layers=20)),
        wavelet(cod(block=3, precincts=b"\x88" * 6, layers=20, order=4), tile=256),
        wavelet(cod(precincts=b"\x66" * 6, layers=50, order=2), tile=1024),
        wavelet(cod(block=3, passes=0x3F)),
        wavelet(cod(levels=6), tile=160),
        wavelet(cod(levels=0)),
        wavelet(cod(passes=0x40), marker(0xFF50, bytes(6)), marker(0xFF56, bytes(4))),
        wavelet(cod(), side=SIDE - 64, tile=SIDE, start=64),
    ],
)
def test_what_encoders_write_for_40_megapixels_passes(stream):
    """Blocks of 32, precincts of 64 to 256, tiles of 160 to 1024, layers by the dozen."""
    check_work(stream, read_frame_header(stream))


def test_a_frame_that_lacks_tiles_is_cut_off():
    """OpenJPEG would answer it, with black where they are missing."""
    whole = wavelet(cod(), side=1024, tile=256)
    check_work(whole, read_frame_header(whole))
    assert "15 of 16 tiles" in refusal(whole[: whole.rindex(b"\xff\x90")] + b"\xff\xd9")


def scan(names: bytes = b"\1", first: int = 0, last: int = 63, bits: int = 0) -> bytes:
    chosen = b"".join(bytes([name, 0]) for name in names)
    return marker(0xFFDA, bytes([len(names)]) + chosen + bytes([first, last, bits])) + b"\0"


def stream(code: int, *parts: bytes, side: int = 3700, components: int = 3) -> bytes:
    """A JPEG of tables, this frame, and what is given."""
    fields = b"".join(bytes([name, 0x11, 0]) for name in range(1, components + 1))
    frame = marker(0xFF00 | code, struct.pack(">BHHB", 8, side, side, components) + fields)
    return b"\xff\xd8" + tables() + frame + b"".join(parts) + b"\xff\xd9"


BAND, MEAN = scan(first=1, last=63), scan(last=0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (stream(0xC0, scan() * 3, scan(b"\2"), scan(b"\3")), "more than one scan"),
        (stream(0xC1, scan(b"\1\2\3") * 2), "more than one scan"),
        (stream(0xC3, scan() * 2, components=1), "more than one scan"),
        (stream(0xF7, scan() * 2, components=1), "more than one scan"),
        (stream(0xC2, MEAN, BAND * 60), "61 scans"),
        (stream(0xC2, MEAN * 60, components=1, side=SIDE), "60 scans"),
        (stream(0xC2, MEAN, marker(0xFFDD, b"\0\1"), BAND * 30), "31 scans"),
        (stream(0xC2, scan(last=0) + BAND * 9999, side=64), "segments"),
        (stream(0xC0, marker(0xFFC0, struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0")), "frame"),
        (stream(0xC2, scan(b"\7")), "within its header"),
        # The end belongs to a picture within a comment
        (stream(0xC0, marker(0xFFFE, b"\xff\xd9"), scan())[:-2], "cut off"),
    ],
)
def test_more_scans_than_an_encoder_writes_are_refused(data, says):
    """Each passes over the whole picture, whether a byte of it is there or not."""
    assert says in refusal(data)


def test_the_scans_of_thumbnails_do_not_count():
    """Markers within a comment belong to no scan of the picture."""
    data = jpeg(PIXELS)
    data = data[:2] + marker(0xFFFE, b"\xff\xda\0\2" * 5000) + data[2:]
    assert decode_frame(data, 2**31).samples.shape == PIXELS.shape


@pytest.mark.parametrize("scans", [10, 64])
def test_a_progressive_jpeg_of_40_megapixels_passes(scans):
    """Whether its script is the usual one, or gives each coefficient a scan of its own."""
    bands = [scan(first=at, last=at) for at in range(1, 64)]
    usual = [scan(first=1, last=5), scan(first=6, last=63), *[BAND] * 3, *[MEAN] * 3]
    data = stream(0xC2, MEAN, *(bands if scans == 64 else usual), components=1, side=SIDE)
    check_work(data, read_frame_header(data))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *((code, "arithmetic") for code in (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)),
        *((code, "hierarchical") for code in (0xC5, 0xC6, 0xC7, 0xDE)),
    ],
)
def test_processes_that_no_radiograph_uses_are_named(code, name):
    """In a file and in an object."""
    data = stream(code, scan(), components=1)
    for file in (
        data,
        dicom(PIXELS, uid.JPEGBaseline8Bit).replace(b"\xff\xc0", bytes([0xFF, code])),
    ):
        with pytest.raises(UnsupportedTransferSyntaxError, match=name):
            read_radiograph(file, PreprocessSpec(size=32))


def exif(entries: bytes, count: int, order: str = "<") -> bytes:
    """An APP1 segment of one directory."""
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, count)
    return marker(0xFFE1, b"Exif\0\0" + head + entries)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_stands_in_exif(order):
    """Of either byte order. XMP has no say, alone or beside it: no viewer obeys it."""
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    xmp = marker(0xFFE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>')
    data = jpeg(PIXELS)
    assert orientation(data) == 1
    assert orientation(data[:2] + xmp + data[2:]) == 1
    assert orientation(data[:2] + xmp + exif(entry, 1, order) + data[2:]) == 6
    assert orientation(data[:2] + exif(entry[:5], 1, order) + data[2:]) == 1


def test_entries_of_exif_that_share_their_bytes_cost_nothing():
    """Five thousand of 60,000 bytes each; and the same once more for other pictures (MPF)."""
    entry = struct.pack("<HHII", 0x9286, 7, 60_000, 8)
    many = exif(entry * 5000, 5000)
    data = jpeg(PIXELS)
    hostile = data[:2] + many * 20 + marker(0xFFE2, b"MPF\0" + many[10:]) + data[2:]
    assert len(without_metadata(hostile)) <= len(data)
    clean, found = (read_radiograph(file, PreprocessSpec(size=32)) for file in (data, hostile))
    np.testing.assert_array_equal(found.tensor, clean.tensor)


def test_texts_and_profiles_of_a_png_are_not_inflated():
    """Hundreds that inflate to megabytes each, in an image that only Pillow reads."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("P").save(buffer, "PNG")
    data = buffer.getvalue()
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20), 9))
    clean = read_radiograph(data, PreprocessSpec(size=32))
    found = read_radiograph(data[:33] + profile * 5000 + data[33:], PreprocessSpec(size=32))
    np.testing.assert_array_equal(found.tensor, clean.tensor)


def test_a_palette_image_without_a_palette_is_damaged():
    """Pillow takes it for black, or fails by an assertion."""
    data = bytearray(png(PIXELS))
    data[25] = 3
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(CorruptImageError):
        read_radiograph(bytes(data), PreprocessSpec(size=32))


@pytest.mark.parametrize(
    "syntax", [syntax for syntax in CODECS if "4.2" in syntax or "4.9" in syntax]
)
def test_what_encoders_write_is_within_all_limits(syntax):
    """Every wavelet that the tests encode."""
    data = bytes(CODECS[syntax](radiograph(300, 200), 12))
    check_work(data, read_frame_header(data))
