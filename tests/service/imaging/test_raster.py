from __future__ import annotations

import io
import struct
import zlib

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
    pixels, warnings = read_raster(data, "png")
    np.testing.assert_array_equal(pixels, expected)
    assert warnings == ()


def test_a_jpeg_is_turned_as_its_camera_says():
    """EXIF orientation is applied, because a thorax on its side is another picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    pixels, _ = read_raster(saved(Image.fromarray(GREY8), "JPEG", quality=95, exif=exif), "jpeg")
    upright, _ = read_raster(jpeg(GREY8), "jpeg")
    np.testing.assert_array_equal(pixels, np.rot90(upright, -1))


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
        ("jpeg", b"\xff\xd8\xff\xe0", CorruptImageError, "JPEG file is damaged"),
    ],
)
def test_what_is_no_radiograph_is_refused(kind, data, error, says):
    """Each refusal has its own class and says why."""
    with pytest.raises(error, match=says):
        read_raster(data, kind)


@pytest.mark.parametrize(
    ("kind", "data"), [("png", png(GREY8)), ("png", png(GREY16)), ("jpeg", jpeg(GREY8))]
)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_half_a_file_is_no_image(kind, data, share):
    """A file that is cut off is refused, never answered with what there is."""
    with pytest.raises(CorruptImageError, match="cut off"):
        read_raster(data[: int(share * len(data))], kind)
