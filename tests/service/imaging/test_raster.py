from __future__ import annotations

import io
import itertools
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from images import jpeg, png, radiograph
from PIL import Image

from service.imaging.errors import (
    ColourImageError,
    CorruptImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    MultiFrameError,
    UnsupportedPixelFormatError,
)
from service.imaging.raster import read_raster

FULL_SIZE = 2**31
GREY8 = radiograph(72, 64, bits=8).astype(np.uint8)
GREY16 = radiograph(72, 64, bits=16)
PHOTO = np.random.default_rng(0).integers(0, 256, (72, 64, 3)).astype(np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def declared(rows: int, columns: int) -> bytes:
    """A PNG that is nothing but a header of this size."""
    header = struct.pack(">2I5B", columns, rows, 16, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY8), GREY8),
        (png(GREY16), GREY16),
        (png(np.stack([GREY8] * 3, axis=2)), GREY8),
        (saved(Image.fromarray(GREY8).convert("LA")), GREY8),
        (saved(Image.fromarray(GREY8).convert("RGBA")), GREY8),
        (saved(Image.fromarray(GREY8).convert("P")), GREY8),
        (saved(Image.fromarray(GREY8 > 99)), (GREY8 > 99) * np.uint8(255)),
    ],
    ids=["grey8", "grey16", "rgb", "alpha", "rgba", "palette", "bilevel"],
)
def test_a_png_gives_its_own_samples(data, expected):
    """No mode loses or saturates a grey value, 16 bits least of all."""
    image = read_raster(data, "png", FULL_SIZE)
    np.testing.assert_array_equal(image.pixels, expected)
    assert (image.warnings, image.fallbacks) == ((), ())


def with_pixels(data: bytes, packed: bytes) -> bytes:
    """The same PNG header before other compressed rows."""
    body = struct.pack(">I", len(packed)) + b"IDAT" + packed
    end = struct.pack(">I", zlib.crc32(b"IDAT" + packed)) + data[-12:]
    return data[:33] + body + end


def rows(pixels: np.ndarray) -> bytes:
    """Unfiltered rows of a grey PNG."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)


def test_a_png_with_rows_to_spare_is_read_by_the_next_decoder():
    """Pillow stops at the last row, whatever follows; the first decoder refuses."""
    data = with_pixels(png(GREY16), zlib.compress(rows(GREY16) + bytes(500)))
    found = read_raster(data, "png", FULL_SIZE)
    np.testing.assert_array_equal(found.pixels, GREY16)
    assert found.fallbacks == ("imagecodecs-png",)


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_png_in_many_chunks_is_read(pieces):
    """Encoders cut the compressed rows wherever they like."""
    packed = zlib.compress(rows(GREY16))
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    parts = [packed[start:end] for start, end in itertools.pairwise(cuts)]
    chunks = [
        struct.pack(">I", len(part))
        + b"IDAT"
        + part
        + struct.pack(">I", zlib.crc32(b"IDAT" + part))
        for part in parts
    ]
    start = png(GREY16)
    found = read_raster(start[:33] + b"".join(chunks) + start[-12:], "png", FULL_SIZE)
    np.testing.assert_array_equal(found.pixels, GREY16)
    assert found.fallbacks == ()


@pytest.mark.parametrize("filtering", range(5))
def test_every_filter_is_undone(filtering):
    """None, Sub, Up, Average and Paeth, in pictures of more than one stored block."""
    pixels = radiograph(300, 290, bits=16)
    samples = imagecodecs.png_encode(pixels, level=1, strategy=3, filter=1 << (3 + filtering))
    found = read_raster(bytes(samples), "png", FULL_SIZE)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.fallbacks == ()


def test_a_png_of_endless_chunks_is_refused_at_once():
    """Millions of empty chunks would keep a loop busy for seconds."""
    empty = b"\0\0\0\0tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    data = png(GREY8)
    with pytest.raises(CorruptImageError, match="chunks"):
        read_raster(data[:33] + empty * 2**20 + data[33:], "png", FULL_SIZE)


def test_a_second_header_is_refused():
    """The size that was checked is the size that is decoded."""
    giant = declared(50000, 50000)[8:33]
    data = png(GREY8)
    with pytest.raises(CorruptImageError, match="PNG"):
        read_raster(data[:33] + giant + with_pixels(data, b"")[33:], "png", FULL_SIZE)


@pytest.mark.parametrize("place", ["header", "rows", "checksum"])
def test_a_flipped_byte_of_a_png_is_noticed(place):
    """Its checksums cover everything that is decoded."""
    data = bytearray(png(GREY8))
    data[{"header": 18, "rows": len(data) // 2, "checksum": len(data) - 17}[place]] ^= 0x10
    with pytest.raises(CorruptImageError, match="PNG"):
        read_raster(bytes(data), "png", FULL_SIZE)


def test_a_large_jpeg_is_decoded_small():
    """Half the size, where both sides keep twice what is needed."""
    pixels = radiograph(200, 160, bits=8).astype(np.uint8)
    found = read_raster(jpeg(pixels), "jpeg", 32)
    assert found.pixels.shape == (100, 80)
    assert found.size == (200, 160)


def test_a_jpeg_is_turned_as_its_camera_says():
    """EXIF orientation is applied, because a thorax on its side is another picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned = saved(Image.fromarray(GREY8), "JPEG", quality=95, exif=exif)
    found = read_raster(turned, "jpeg", FULL_SIZE)
    upright = read_raster(jpeg(GREY8), "jpeg", FULL_SIZE)
    np.testing.assert_array_equal(found.pixels, np.rot90(upright.pixels, -1))
    assert found.size == upright.size[::-1]


@pytest.mark.parametrize(
    ("kind", "data", "error", "says"),
    [
        ("png", png(PHOTO), ColourImageError, "colour"),
        ("jpeg", jpeg(PHOTO), ColourImageError, "colour"),
        (
            "png",
            saved(
                Image.fromarray(GREY8),
                save_all=True,
                append_images=[Image.fromarray(255 - GREY8)],
            ),
            MultiFrameError,
            "animated",
        ),
        (
            "jpeg",
            saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
            UnsupportedPixelFormatError,
            "CMYK",
        ),
        ("png", png(GREY8[:1, :1]), ImageTooSmallError, "1 x 1"),
        ("png", declared(50000, 50000), ImageTooLargeError, "50000 x 50000"),
        ("png", declared(64, 64), CorruptImageError, "PNG file is damaged"),
        ("png", b"\x89PNG\r\n\x1a\n", CorruptImageError, "PNG file is damaged"),
        ("jpeg", b"\xff\xd8\xff\xe0", CorruptImageError, "cut off within its header"),
    ],
)
def test_what_is_no_radiograph_is_refused(kind, data, error, says):
    """Each refusal has its own class and says why."""
    with pytest.raises(error, match=says):
        read_raster(data, kind, FULL_SIZE)


@pytest.mark.parametrize(
    ("kind", "data"), [("png", png(GREY8)), ("png", png(GREY16)), ("jpeg", jpeg(GREY8))]
)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_half_a_file_is_no_image(kind, data, share):
    """A file that is cut off is refused, never answered with what there is."""
    with pytest.raises(CorruptImageError, match="cut off"):
        read_raster(data[: int(share * len(data))], kind, FULL_SIZE)
