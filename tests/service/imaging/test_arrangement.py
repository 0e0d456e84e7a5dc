"""Values that do not lie as the header says, where no codestream tells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import dicom, jpeg, png, radiograph, tiff
from pydicom import uid

from model_store import PreprocessSpec
from service.imaging import CorruptImageError, UnrecognisedFormatError, read_radiograph
from service.imaging.arrangement import check_rows, in_byte_order
from service.imaging.dicom import read_dicom

FULL_SIZE = 2**31
PIXELS = radiograph(320, 256)
GREY8 = (PIXELS >> 4).astype(np.uint8)
PLAIN = [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless]
DEPTHS = st.integers(10, 14)


def warnings_of(data: bytes) -> tuple[str, ...]:
    return read_dicom(data, FULL_SIZE).warnings


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("pixels", [PIXELS, GREY8, np.stack([GREY8] * 3, 2), PIXELS.T])
def test_rows_and_columns_that_are_exchanged_are_found(syntax, pixels):
    """Portrait and landscape, of one byte and two, grey and grey in colour."""
    pixels = np.ascontiguousarray(pixels)
    rows, columns = pixels.shape[:2]
    assert warnings_of(dicom(pixels, syntax)) == ()
    with pytest.raises(CorruptImageError, match="exchanged"):
        read_dicom(dicom(pixels, syntax, Rows=columns, Columns=rows), FULL_SIZE)


@given(
    rows=st.integers(32, 200),
    columns=st.integers(32, 200),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["radiograph", "slope", "flat", "noise", "half"]),
    bright=st.booleans(),
)
def test_rows_of_the_right_length_are_left_alone(rows, columns, seed, kind, bright):
    """Whatever they show: also slopes, which rise as far in a row as in several columns."""
    pixels = {
        "radiograph": lambda: radiograph(rows, columns, seed=seed),
        "slope": lambda: np.repeat(np.arange(rows, dtype=np.uint16)[:, None] * 20, columns, 1),
        "flat": lambda: np.full((rows, columns), 7, np.uint16),
        "noise": lambda: np.random.default_rng(seed).integers(0, 4096, (rows, columns), np.uint16),
        "half": lambda: np.where(np.arange(rows)[:, None] < rows // 2, 9, np.ones(columns)),
    }[kind]().astype(np.uint16)
    check_rows(4095 - pixels if bright else pixels)


@pytest.mark.parametrize("syntax", PLAIN)
def test_bytes_in_the_wrong_order_are_swapped(syntax):
    """The picture is that of the right order, and there is a warning."""
    found = read_dicom(dicom(PIXELS.byteswap(), syntax), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, PIXELS)
    assert found.warnings == ("byte_order_contradicted",)


@given(bits=DEPTHS, below_zero=st.integers(0, 2**11), signed=st.booleans(), seed=st.integers(0, 99))
def test_the_order_is_told_from_the_picture(bits, below_zero, signed, seed):
    """Of any depth in which it shows, with values below zero or without."""
    pixels = radiograph(160, 144, bits=min(bits, 15) if signed else bits, seed=seed)
    values = (pixels - np.uint16(below_zero)) if signed else pixels
    right, told = in_byte_order(values, 16, signed=signed)
    assert right is values
    assert told == ()
    swapped, told = in_byte_order(values.byteswap(), 16, signed=signed)
    np.testing.assert_array_equal(swapped, values)
    assert told == ("byte_order_contradicted",)


@pytest.mark.parametrize(
    "pixels",
    [
        (GREY8.astype(np.uint16)),
        (GREY8.astype(np.uint16) << 8),
        (GREY8.astype(np.uint16) * 257),
        np.where(PIXELS > 2000, 4095, 0).astype(np.uint16),
        np.random.default_rng(0).integers(0, 2**16, (160, 144), np.uint16),
    ],
    ids=["8 bits", "8 high bits", "8 bits twice", "two values", "noise"],
)
def test_where_the_order_does_not_show_it_is_as_declared(pixels):
    """Values of 8 bits are the same picture either way."""
    for values in (pixels, pixels.byteswap()):
        found, told = in_byte_order(values, 16, signed=False)
        assert found is values
        assert told == ()


@pytest.mark.parametrize(
    "data",
    [
        dicom(PIXELS),
        dicom(PIXELS + 2560),  # half of their bytes are line feeds
        dicom(np.where(PIXELS > 2000, PIXELS, 0)),  # none for a long while
        dicom(GREY8),
        dicom(PIXELS, uid.JPEG2000Lossless),
        dicom(PIXELS, uid.RLELossless),
        tiff(PIXELS),
        png(PIXELS),
        jpeg(GREY8),
    ],
    ids=["12 bits", "feeds", "dark", "8 bits", "JPEG 2000", "RLE", "TIFF", "PNG", "JPEG"],
)
def test_a_file_that_was_transferred_as_text_is_named(data):
    """Each line feed got a carriage return: the picture is sheared, and lengths may still fit."""
    spec = PreprocessSpec(size=64)
    assert read_radiograph(data, spec).tensor.any()
    with pytest.raises((CorruptImageError, UnrecognisedFormatError), match="as text"):
        read_radiograph(data.replace(b"\n", b"\r\n"), spec)


def test_a_picture_of_line_feeds_is_no_text():
    """Pixels of 2573 are a carriage return and a line feed each."""
    flat = np.full((400, 400), 2573, np.uint16)
    flat[150:250, 150:250] = radiograph(100, 100)
    assert read_radiograph(dicom(flat), PreprocessSpec(size=64)).format == "dicom"
    assert read_radiograph(png(flat), PreprocessSpec(size=64)).format == "png"


@pytest.mark.parametrize("frame", [0, 0.2, 1 / 3])
def test_exchanged_sides_are_found_within_a_black_frame(frame):
    """Also where most of the picture is black, and bends nowhere."""
    rows, columns = (int(side / (1 - 2 * frame)) for side in PIXELS.shape)
    plate = np.zeros((rows, columns), np.uint16)
    top, left = (rows - 320) // 2, (columns - 256) // 2
    plate[top : top + 320, left : left + 256] = PIXELS
    check_rows(plate)
    with pytest.raises(CorruptImageError, match="exchanged"):
        check_rows(plate.reshape(columns, rows))


@pytest.mark.parametrize("gain", [0.99, 0.95, 0.5])
@pytest.mark.parametrize("shape", [(512, 256), (256, 512), (600, 200)])
def test_rows_in_turns_are_no_other_length(shape, gain):
    """Of a plate that is twice as long as wide, two rows on lies what one wrong row on would."""
    pixels = radiograph(*shape).astype(np.float64)
    pixels[1::2] *= gain
    check_rows(pixels.astype(np.uint16))


def test_overlays_above_the_pixels_have_no_say_in_their_order():
    """Bits that do not count may change from pixel to pixel."""
    overlay = np.random.default_rng(0).integers(0, 16, PIXELS.shape, np.uint16) << 12
    found = read_dicom(dicom(PIXELS | overlay, BitsStored=12), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, PIXELS)
    assert found.warnings == ()


def test_a_narrow_range_across_a_full_byte_is_in_order():
    """Where values lie around 256, the low byte wraps."""
    narrow = (200 + (PIXELS >> 5)).astype(np.uint16)
    assert in_byte_order(narrow, 16, signed=False) == (narrow, ())
