from __future__ import annotations

import io
import itertools
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from hostile import chunk
from images import jpeg, png, radiograph
from PIL import Image, ImageOps

from model_store import PreprocessSpec
from service.imaging import read_radiograph, sniff
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
    np.testing.assert_array_equal(image.picture.pixels, expected)
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
    np.testing.assert_array_equal(found.picture.pixels, GREY16)
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
    np.testing.assert_array_equal(found.picture.pixels, GREY16)
    assert found.fallbacks == ()


@pytest.mark.parametrize("filtering", range(5))
def test_every_filter_is_undone(filtering):
    """None, Sub, Up, Average and Paeth, in pictures of more than one stored block."""
    pixels = radiograph(300, 290, bits=16)
    samples = imagecodecs.png_encode(pixels, level=1, strategy=3, filter=1 << (3 + filtering))
    found = read_raster(bytes(samples), "png", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, pixels)
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
    assert found.picture.pixels.shape == (100, 80)
    assert found.picture.size == (200, 160)


def test_a_jpeg_is_turned_as_its_camera_says():
    """EXIF orientation is applied, because a thorax on its side is another picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned = saved(Image.fromarray(GREY8), "JPEG", quality=95, exif=exif)
    found = read_raster(turned, "jpeg", FULL_SIZE)
    upright = read_raster(jpeg(GREY8), "jpeg", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, np.rot90(upright.picture.pixels, -1))
    assert found.picture.size == upright.picture.size[::-1]


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


PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
PASSES += [(1, 0, 2, 1)]


def interlaced(pixels: np.ndarray, colour: int) -> bytes:
    """A PNG of seven pictures (Adam7), without filters."""
    bits = 8 * pixels.itemsize
    lines = []
    for top, left, down, across in PASSES:
        part = pixels[top::down, left::across]
        wide = part.astype(part.dtype.newbyteorder(">"))
        lines += [b"\0" + line.tobytes() for line in wide if line.size]
    header = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


@pytest.mark.parametrize("shape", [(72, 64), (33, 57), (40, 32)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_an_interlaced_png_keeps_its_bits(shape, channels, bits, capfd):
    """Ten bits of sixteen are few grey levels where only the high byte is left."""
    grey = radiograph(*shape, bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    samples = np.stack([grey] * channels, axis=2)
    if channels in {2, 4}:
        samples[..., -1] = 77
    data = interlaced(samples if channels > 1 else grey, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    found = read_raster(data, "png", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, grey)
    assert (found.warnings, found.fallbacks) == ((), ())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_png_of_several_samples_keeps_its_bits(channels):
    """Not interlaced; and where libpng refuses, no decoder of 8 bits answers instead."""
    samples = np.stack([GREY16] * channels, axis=2)
    data = bytes(imagecodecs.png_encode(samples))
    found = read_raster(data, "png", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, GREY16)
    with pytest.raises(CorruptImageError, match="PNG"):
        read_raster(with_pixels(data, zlib.compress(bytes(10))), "png", FULL_SIZE)


def test_a_grey_picture_of_few_bits_may_be_interlaced():
    """Pillow reads it; cut off, it is refused."""
    lines = []
    for top, left, down, across in PASSES:
        part = (GREY8 > 99)[top::down, left::across]
        lines += [b"\0" + line.tobytes() for line in np.packbits(part, axis=1) if line.size]
    header = struct.pack(">2I5B", 64, 72, 1, 0, 0, 0, 1)
    for whole in (True, False):
        body = zlib.compress(b"".join(lines if whole else lines[:40]))
        chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, each) for name, each in chunks)
        if whole:
            found = read_raster(data, "png", FULL_SIZE).picture.pixels
            np.testing.assert_array_equal(found, (GREY8 > 99) * np.uint8(255))
        else:
            with pytest.raises(CorruptImageError, match="PNG"):
                read_raster(data, "png", FULL_SIZE)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_rows_that_lack_are_missed_by_no_decoder(mode):
    """Pillow leaves them black where the compressed data end as they should."""
    data = saved(Image.fromarray(GREY8).convert(mode))
    packed = data[data.index(b"IDAT") + 4 : -16]
    rows = zlib.decompress(packed)
    end = data.index(b"IDAT") - 4
    for share, refused in ((1, False), (0.5, True)):
        short = zlib.compress(rows[: int(len(rows) * share)])
        half = data[:end] + chunk(b"IDAT", short) + data[-12:]
        if refused:
            with pytest.raises(CorruptImageError, match="PNG"):
                read_raster(half, "png", FULL_SIZE)
        else:
            assert read_raster(half, "png", FULL_SIZE).picture.pixels.shape == GREY8.shape


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("bits", [8, 16])
def test_half_a_png_with_an_end_is_no_image(share, bits):
    """Interlaced or not, whatever chunks close it."""
    grey = GREY8 if bits == 8 else GREY16
    for data in (png(grey), interlaced(grey, 0)):
        half = data[: int(share * len(data))]
        for end in (b"", data[-12:]):
            with pytest.raises(CorruptImageError):
                read_raster(half + end, "png", FULL_SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("grey", [GREY8, GREY16], ids=["8", "16"])
def test_a_png_is_turned_like_a_jpeg(orientation, grey):
    """By its eXIf chunk, before the pixels or behind them; XMP has no say."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    said = chunk(b"eXIf", exif.tobytes()[6:])
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8"/>')
    plain = png(grey)
    upright = np.asarray(ImageOps.exif_transpose(with_exif(grey, exif)))
    for data in (plain[:33] + said + xmp + plain[33:], plain[:-12] + xmp + said + plain[-12:]):
        found = read_raster(data, "png", FULL_SIZE)
        np.testing.assert_array_equal(found.picture.pixels, upright)
        assert found.picture.size == upright.shape
    beside = read_raster(plain[:33] + xmp + plain[33:], "png", FULL_SIZE)
    np.testing.assert_array_equal(beside.picture.pixels, grey)
    turned = read_raster(saved(Image.fromarray(GREY8), "JPEG", exif=exif), "jpeg", FULL_SIZE)
    assert turned.picture.size == upright.shape


def with_exif(grey: np.ndarray, exif: Image.Exif) -> Image.Image:
    """Pillow's own picture of these samples, with what EXIF says."""
    image = Image.fromarray(grey)
    image.getexif().update(exif)
    return image


@pytest.mark.parametrize("damage", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"\0" * 200])
def test_a_damaged_exif_turns_nothing(damage):
    """It says nothing, and spoils nothing."""
    data = png(GREY8)
    found = read_raster(data[:33] + chunk(b"eXIf", damage) + data[33:], "png", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, GREY8)


# Codestreams that stand in files of their own

TWELVE = radiograph(72, 64)
SIGNED = TWELVE.astype(np.int16) - 2000
BOX = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjph \0\0\0\0jph "


def boxed(stream: bytes, head: bytes = b"") -> bytes:
    """A JPH file, as far as a reader needs it."""
    return BOX + head + struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream


HTJ2K = bytes(imagecodecs.htj2k_encode(TWELVE, reversible=True))


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (imagecodecs.jpeg_encode(TWELVE, lossless=True, bitspersample=12), "jpeg", TWELVE),
        (imagecodecs.jpeg_encode(GREY8, lossless=True), "jpeg", GREY8),
        (imagecodecs.jpeg_encode(GREY16, lossless=True, bitspersample=16), "jpeg", GREY16),
        (imagecodecs.jpegls_encode(TWELVE), "jpeg-ls", TWELVE),
        (imagecodecs.jpegls_encode(GREY8), "jpeg-ls", GREY8),
        (imagecodecs.jpegls_encode(np.stack([GREY8] * 3, axis=2)), "jpeg-ls", GREY8),
        (imagecodecs.jpeg2k_encode(TWELVE, 0, codecformat="j2k", reversible=True),
         "jpeg-2000", TWELVE),
        (imagecodecs.jpeg2k_encode(TWELVE, 0, codecformat="jp2", reversible=True),
         "jpeg-2000", TWELVE),
        (imagecodecs.jpeg2k_encode(SIGNED, 0, codecformat="j2k", reversible=True),
         "jpeg-2000", SIGNED),
        (imagecodecs.jpeg2k_encode(np.stack([GREY16] * 3, axis=2), 0, codecformat="jp2",
         reversible=True), "jpeg-2000", GREY16),
        (HTJ2K, "jpeg-2000", TWELVE),
        (boxed(HTJ2K), "jpeg-2000", TWELVE),
        (boxed(HTJ2K) + struct.pack(">I4s", 8, b"uuid"), "jpeg-2000", TWELVE),
        (BOX + struct.pack(">I4sQ", 1, b"jp2c", 16 + len(HTJ2K)) + HTJ2K, "jpeg-2000", TWELVE),
        (BOX + struct.pack(">I4s", 0, b"jp2c") + HTJ2K, "jpeg-2000", TWELVE),
    ],
)  # fmt: skip
def test_a_codestream_is_a_file_as_well(data, kind, expected):
    """Radiographs of 12 bits are kept so outside DICOM too; every sample is as it was coded."""
    data = bytes(data)
    found = read_raster(data, sniff(data), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, expected)
    assert (found.format, found.picture.size, found.warnings) == (kind, expected.shape, ())
    assert read_radiograph(data, PreprocessSpec(size=32)).format == kind


@pytest.mark.parametrize("bits", [8, 12])
def test_a_jpeg_of_12_bits_is_read(bits):
    """JPEG extended, which Pillow cannot, and colour that is grey in it."""
    grey = TWELVE if bits == 12 else GREY8
    for samples in (grey, np.stack([grey] * 3, axis=2)):
        data = bytes(imagecodecs.jpeg_encode(samples, 98, bitspersample=bits))
        found = read_raster(data, "jpeg", FULL_SIZE)
        # Several samples fill their 16 bits
        scale = 16 if found.picture.pixels.max() > 4095 else 1
        np.testing.assert_allclose(found.picture.pixels / scale, grey, atol=(1 << bits) // 40)


@pytest.mark.parametrize("min_side", [16, 32])
def test_a_large_jpeg_2000_is_decoded_small(min_side):
    """As within DICOM, by its wavelet."""
    pixels = radiograph(200, 160)
    data = bytes(imagecodecs.jpeg2k_encode(pixels, 0, codecformat="jp2", reversible=True))
    found = read_raster(data, "jpeg-2000", min_side)
    assert found.picture.size == pixels.shape
    assert min_side <= min(found.picture.pixels.shape) < 2 * min_side
    assert found.picture.wavelet == "5/3"


COLOURED = np.stack([TWELVE, 4095 - TWELVE, TWELVE >> 1], axis=2)
COLOURED8 = (COLOURED >> 4).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (imagecodecs.jpegls_encode(COLOURED8), ColourImageError, "colour"),
        (imagecodecs.jpegls_encode(COLOURED), ColourImageError, "colour"),
        (imagecodecs.jpeg_encode(COLOURED, 95, bitspersample=12), ColourImageError, "colour"),
        (imagecodecs.jpeg2k_encode(PHOTO, 0, codecformat="jp2"), ColourImageError, "colour"),
        (imagecodecs.jpeg2k_encode(COLOURED, 0, codecformat="j2k", bitspersample=12),
         ColourImageError, "colour"),
        (imagecodecs.jpeg2k_encode(TWELVE.astype(np.uint32) << 8, 0, codecformat="j2k",
         bitspersample=20), UnsupportedPixelFormatError, "20 bits"),
        (boxed(HTJ2K, struct.pack(">I4sI4s", 16, b"jp2h", 8, b"pclr")),
         UnsupportedPixelFormatError, "palette"),
        (boxed(HTJ2K) + boxed(HTJ2K)[len(BOX):], MultiFrameError, "several pictures"),
        (boxed(HTJ2K)[:-200] + b"\xff\xd9", CorruptImageError, "cut off"),
        (BOX, CorruptImageError, "no codestream"),
        (BOX + struct.pack(">I4s", 3, b"jp2c") + HTJ2K, CorruptImageError, "JPEG 2000 file"),
        (BOX + struct.pack(">I4s", 8, b"free") * 1000, CorruptImageError, "no codestream"),
        (bytes(imagecodecs.jpegls_encode(TWELVE))[:900], CorruptImageError, "cut off"),
        (imagecodecs.jpegls_encode(TWELVE)[:4], CorruptImageError, "cut off"),
    ],
)  # fmt: skip
def test_a_codestream_that_is_no_radiograph_is_refused(data, error, says):
    """Colour, several pictures, palettes, and what is cut off."""
    data = bytes(data)
    with pytest.raises(error, match=says):
        read_raster(data, sniff(data), FULL_SIZE)


@pytest.mark.parametrize("bits", [0, 3, 17, 255])
def test_bits_that_png_does_not_have_are_refused(bits):
    """A sentence says so, and no traceback."""
    data = bytearray(png(GREY8))
    data[24] = bits
    data[25] = 2
    with pytest.raises((CorruptImageError, UnsupportedPixelFormatError)):
        read_raster(bytes(data), "png", FULL_SIZE)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_pixel_needs_a_colour_of_the_palette(bits):
    """PNG 11.2.2: an index beyond it is an error; readers would make up black for it."""
    image = Image.fromarray((radiograph(64, 64) >> 8).astype(np.uint8))
    image.putpalette([grey for grey in range(0, 256, 17) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=bits)
    assert read_raster(buffer.getvalue(), "png", 32).warnings == ()
    data = buffer.getvalue()
    at = data.index(b"PLTE")
    short = b"PLTE" + data[at + 4 : at + 4 + 24]
    rest = data[at + 8 + struct.unpack(">I", data[at - 4 : at])[0] :]
    cut = (
        data[: at - 4] + struct.pack(">I", 24) + short + struct.pack(">I", zlib.crc32(short)) + rest
    )
    with pytest.raises(CorruptImageError, match="damaged"):
        read_raster(cut, "png", 32)


def test_a_png_whose_checksum_is_wrong_is_damaged():
    """Zeros among the compressed rows inflate as well, to other pixels."""
    picture = radiograph(300, 280, bits=16)
    packed = zlib.compress(rows(picture))
    damaged = bytearray(packed)
    damaged[20_000:20_500] = bytes(500)
    wrong_sum = packed[:-4] + bytes(4)
    for pixels in (bytes(damaged), wrong_sum, zlib.compress(rows(picture) + bytes(10))[:-1]):
        with pytest.raises(CorruptImageError, match="damaged"):
            read_raster(with_pixels(png(picture), pixels), "png", 32)


@pytest.mark.parametrize("bits", [1, 2])
def test_a_png_of_few_greys_is_read(bits):
    """Between so few values there are gaps only; none of them is an outlier."""
    few = (radiograph(128, 128) >> (12 - bits)).astype(np.uint8)
    picture = Image.fromarray(few > 0) if bits == 1 else Image.fromarray(few)
    tensor = read_radiograph(saved(picture, bits=bits), PreprocessSpec(size=64)).tensor
    assert len(np.unique(tensor)) > 2
