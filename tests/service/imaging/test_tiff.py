"""TIFF of one grey page: what radiographs use of it is read, and what is hostile is not."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import directory_of_tiff, png, radiograph, tiff
from PIL import Image, ImageOps

from model_store import PreprocessSpec
from service.imaging import (
    ColourImageError,
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    MultiFrameError,
    UnsupportedPixelFormatError,
    UnsupportedTransferSyntaxError,
    image_to_tensor,
    read_radiograph,
)
from service.imaging.raster import read_raster

FULL_SIZE = 2**31
SIXTEEN = radiograph(72, 65, bits=16)
EIGHT = (SIXTEEN >> 8).astype(np.uint8)
SIGNED = (SIXTEEN.astype(np.int32) - 2**15).astype(np.int16)
SPEC = PreprocessSpec(size=32)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def read(data: bytes) -> np.ndarray:
    return read_raster(data, "tiff", FULL_SIZE).picture.pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5, 8, 32946, 32773])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"piece": (10, 0)},
        {"piece": (1, 0)},
        {"piece": (32, 16), "tiled": True},
        {"piece": (128, 128), "tiled": True},
    ],
    ids=str,
)
def test_every_form_gives_its_own_samples(order, compression, predictor, form):
    """Byte order, compression, differences, strips, tiles: the same picture."""
    for pixels in (EIGHT, SIXTEEN, SIGNED):
        stored = 8 if compression == 32946 else compression
        data = tiff(
            pixels, order=order, compression=stored, predictor=predictor, **form,
            tags={259: (compression,)},
        )  # fmt: skip
        found = read_radiograph(data, SPEC)
        assert (found.format, found.warnings, found.fallbacks) == ("tiff", (), ())
        np.testing.assert_array_equal(read(data), pixels)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "I;16", "LA", "RGB", "RGBA", "P"])
def test_what_another_library_writes_is_read(compression, mode):
    """Pillow and libtiff, grey in every guise; 16 bits stay."""
    image = Image.fromarray(SIXTEEN if mode == "I;16" else EIGHT)
    image = image if mode in {"L", "I;16"} else image.convert(mode)
    found = read_raster(saved(image, compression=compression), "tiff", FULL_SIZE)
    expected = np.asarray(image if mode == "I;16" else image.convert("L"))
    pixels = found.picture.pixels >> 8 if mode == "P" else found.picture.pixels
    np.testing.assert_array_equal(pixels, expected)
    assert found.warnings == ()


def test_white_is_zero_is_inverted():
    """One radiograph has one tensor: photometric interpretation 0 is MONOCHROME1 of TIFF."""
    expected = image_to_tensor(png(SIXTEEN), SPEC).astype(int)
    negative = tiff(65535 - SIXTEEN, tags={262: (0,)})
    np.testing.assert_allclose(image_to_tensor(negative, SPEC), expected, atol=1)
    np.testing.assert_array_equal(image_to_tensor(tiff(SIXTEEN), SPEC), expected)
    np.testing.assert_array_equal(image_to_tensor(tiff(SIGNED), SPEC), expected)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_samples_of_a_pixel_lie_together_or_apart(planar, count):
    """Grey with transparency, RGB, RGBA; of 16 bits."""
    samples = np.stack([SIXTEEN] * count, axis=2)
    samples[..., -1] = SIXTEEN if count == 3 else 7
    data = tiff(samples, planar=planar, compression=8, piece=(9, 0))
    np.testing.assert_array_equal(read(data), SIXTEEN)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_page_is_turned_as_it_says(orientation):
    """The tag is that of EXIF, and Pillow turns by it as well."""
    data = tiff(EIGHT, tags={274: (orientation,)})
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = read_raster(data, "tiff", FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, upright)
    assert found.picture.size == upright.shape


def test_several_pages_are_refused_but_a_thumbnail_is_none():
    """NewSubfileType tells them apart, before or after the page."""
    pages = saved(Image.fromarray(EIGHT), save_all=True, append_images=[Image.fromarray(EIGHT)])
    with pytest.raises(MultiFrameError, match="several pages"):
        read(pages)
    length = len(tiff(EIGHT))
    small, _ = directory_of_tiff({254: (1,), 256: (8,), 257: (8,)})
    np.testing.assert_array_equal(read(tiff(EIGHT, following=length) + small), EIGHT)
    with pytest.raises(CorruptImageError, match="no page"):
        read(tiff(EIGHT, tags={254: (1,)}))


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (tiff(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)),
         ColourImageError, "colour"),
        (tiff(EIGHT, tags={258: (1,)}), UnsupportedPixelFormatError, "1 bits"),
        (tiff(EIGHT, tags={258: (12,)}), UnsupportedPixelFormatError, "12 bits"),
        (tiff(EIGHT, tags={339: (3,)}), UnsupportedPixelFormatError, "no integers"),
        (tiff(EIGHT, tags={262: (6,)}), UnsupportedPixelFormatError, "interpretation 6"),
        (tiff(EIGHT, tags={277: (5,)}), UnsupportedPixelFormatError, "5 samples"),
        (tiff(EIGHT, tags={266: (2,)}), UnsupportedPixelFormatError, "order of bits"),
        (tiff(EIGHT, tags={317: (3,)}), UnsupportedPixelFormatError, "predictor"),
        (tiff(EIGHT, tags={259: (7,)}), UnsupportedTransferSyntaxError, r"7 \(JPEG\)"),
        (tiff(EIGHT, tags={259: (50000,)}), UnsupportedTransferSyntaxError, "50000"),
        (tiff(EIGHT[:20]), ImageTooSmallError, "20 x 65"),
        (tiff(EIGHT, tags={256: (65535,), 257: (65535,)}), ImageTooLargeError, "65535"),
        (tiff(EIGHT, tiled=True, piece=(32, 32), tags={322: (2**31,), 323: (2**31,)}),
         ImageTooLargeError, "tiles"),
        (tiff(EIGHT, tags={256: (2000,), 257: (20000,), 278: (1,)}, planar=True),
         CorruptImageError, "1 of 20000 values"),
        (tiff(EIGHT, tiled=True, piece=(32, 32), tags={256: (6000,), 257: (6000,), 322: (8,),
         323: (8,)}), CorruptImageError, "pieces"),
        (tiff(EIGHT, compression=8, tags={279: (2**20,)}), CorruptImageError, "longer than"),
        (tiff(EIGHT, tags={278: (0,)}), CorruptImageError, "damaged or cut off"),
        (tiff(EIGHT, tags={273: (2**31,)}), CorruptImageError, "cut off"),
        (tiff(EIGHT, compression=5)[:1000], CorruptImageError, "damaged or cut off"),
        (tiff(EIGHT, tags={262: ()}), CorruptImageError, "262"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_no_radiograph_uses_is_refused(data, error, says):
    """By the directory alone, before anything is decoded."""
    with pytest.raises(error, match=says):
        read(data)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_half_a_page_is_no_image(compression, share):
    """The directory may stand first: then what is cut off is the pixels."""
    data = tiff(EIGHT, compression=compression, piece=(9, 0))
    (directory,) = struct.unpack_from("<I", data, 4)
    whole = tiff(EIGHT, compression=compression, piece=(9, 0))
    cut = 8 + int(share * (directory - 8))
    # The pixels between are gone, and what points at them points beyond the end
    ends = tiff(EIGHT, compression=compression, piece=(9, 0), tags={273: (cut + 10**6,) * 8})
    with pytest.raises(CorruptImageError, match="cut off"):
        read(ends)
    with pytest.raises(CorruptImageError):
        read(whole[:cut])


def test_directories_without_end_are_refused():
    """One that follows itself, and one of more entries than any writer has."""
    data = bytearray(tiff(EIGHT))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    with pytest.raises(CorruptImageError, match="directories"):
        read(bytes(data))
    struct.pack_into("<H", data, at, 5000)
    with pytest.raises(CorruptImageError, match="5000 entries"):
        read(bytes(data))


@settings(max_examples=300, deadline=None)
@given(
    tag=st.sampled_from(
        [254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 339]
    ),
    values=st.lists(
        st.sampled_from([0, 1, 2, 3, 5, 8, 16, 31, 255, 65535, 2**31, 2**32 - 1]), max_size=5
    ).map(tuple),
    compression=st.sampled_from([1, 5, 8, 32773]),
)
def test_any_number_is_read_or_refused(tag, values, compression):
    """Never another exception."""
    with suppress(ImageError):
        read_radiograph(tiff(EIGHT, compression=compression, tags={tag: values}), SPEC)
