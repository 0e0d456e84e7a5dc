from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import dicom, jpeg, png, radiograph
from pydicom import uid
from surroundings import framed, on_plate

from model_store import PreprocessSpec
from service.imaging import image_to_tensor, read_radiograph
from service.imaging.dicom import read_dicom
from service.imaging.exposed import declared_field, field_of
from service.imaging.outliers import without_outliers
from service.imaging.picture import WHOLE, Field, Picture
from service.imaging.preprocess import prepare

SPEC = PreprocessSpec(size=64, window_percentiles=(0.5, 99.5))
OLD = SPEC.model_copy(update={"version": 1})
FULL_SIZE = 2**31
PIXELS = radiograph(300, 260)
few = settings(deadline=None, max_examples=25)


def tensor_of(pixels: np.ndarray, spec: PreprocessSpec = SPEC, **display) -> np.ndarray:
    return prepare(Picture(pixels, pixels.shape, **display), spec).tensor.astype(int)


@few
@given(
    rows=st.integers(64, 400),
    columns=st.integers(64, 400),
    bits=st.sampled_from([8, 12, 16]),
    seed=st.integers(0, 99),
    inverted=st.booleans(),
)
def test_an_ordinary_radiograph_is_left_as_it_is(rows, columns, bits, seed, inverted):
    """Both versions of the preprocessing make the same tensor of it, and nothing is odd."""
    pixels = radiograph(rows, columns, bits=bits, seed=seed)
    picture = Picture(pixels, pixels.shape, inverted=inverted)
    found = prepare(picture, SPEC)
    np.testing.assert_array_equal(found.tensor, prepare(picture, OLD).tensor)
    assert (found.warnings, found.finer) == ((), None)


@pytest.mark.parametrize("value", [-32768, -6000, 30000, 32767])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_frame_far_off_becomes_dark(value, inverted):
    """Whatever its value and the polarity: the rest keeps the window it has with a dark frame."""
    sign = -1 if inverted else 1
    odd = sign * framed(PIXELS, 0.03, value, "i4")
    plain = framed(PIXELS, 0.03, int(PIXELS.min()))
    expected = tensor_of(plain, OLD)
    np.testing.assert_allclose(tensor_of(odd, inverted=inverted), expected, atol=4)
    assert np.abs(tensor_of(odd, OLD, inverted=inverted) - expected).mean() > 20


@pytest.mark.parametrize("value", [-32768, 32767])
def test_a_box_keeps_its_side(value):
    """What was painted over text stays black, and a marker white, next to all else."""
    odd = PIXELS.astype(np.int32)
    odd[20:50, 20:120] = value
    plain = PIXELS.astype(np.int32)
    plain[20:50, 20:120] = PIXELS.min() if value < 0 else PIXELS.max()
    np.testing.assert_allclose(tensor_of(odd), tensor_of(plain, OLD), atol=2)


def test_outliers_move_the_window_steadily():
    """As the gap grows, no grey level jumps: else two copies of one picture had two tensors."""
    before = None
    for value in range(4095, 12000, 50):
        odd = PIXELS.astype(np.int32)
        odd[20:50, 20:120] = value
        tensor = tensor_of(odd)
        if before is not None:
            assert np.abs(tensor - before).max() <= 8
        before = tensor


@few
@given(values=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=6), data=st.data())
def test_of_few_values_something_is_left(values, data):
    """However they lie, some of them remain, and none is invented."""
    shape = data.draw(st.tuples(st.integers(32, 70), st.integers(32, 70)))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = random.choice(np.array(values, np.int16), shape)
    found, _ = without_outliers(Picture(pixels, pixels.shape))
    assert found.pixels.dtype == pixels.dtype
    assert pixels.min() <= found.pixels.min() <= found.pixels.max() <= pixels.max()
    if len(set(values)) > 1:
        assert pixels.min() < pixels.max() or found.pixels is pixels


@pytest.mark.parametrize("value", [0, 1300, 4095])
@pytest.mark.parametrize("scale", [1.5, 2, 3])
def test_an_empty_plate_is_cut_off(scale, value):
    """What is left is the radiograph, as large as if there were no plate, but for its rim."""
    plate = on_plate(PIXELS.clip(1, 4094), scale, value)
    spec = SPEC.model_copy(update={"size": 128})
    found = prepare(Picture(plate, plate.shape), spec)
    assert "border_ignored" in found.warnings
    apart = np.abs(found.tensor.astype(int) - tensor_of(PIXELS, spec))[0]
    assert apart[3:-3, 3:-3].mean() < 2.5
    assert apart.mean() < 8


def test_a_narrow_border_is_part_of_the_picture():
    """Cutting would gain nothing, and the sides of many lateral radiographs are of one value."""
    plate = on_plate(PIXELS, 1.15, 0)
    assert prepare(Picture(plate, plate.shape), SPEC).warnings == ()


@pytest.mark.parametrize(
    ("grey", "expected"),
    [
        (np.zeros((64, 64), np.uint8), WHOLE),
        (np.eye(64, dtype=np.uint8) * 255, WHOLE),
        (np.pad(np.arange(1024).reshape(32, 32) % 251 + 5, 16), Field(0.25, 0.75, 0.25, 0.75)),
    ],
    ids=["nothing", "a line", "a field"],
)
def test_a_field_lies_within_its_border(grey, expected):
    """Constant rows and columns at the edges are a border, unless nothing else is there."""
    assert field_of(grey.astype(np.uint8)[np.newaxis]) == expected


def test_a_small_field_is_decoded_finer():
    """A frame is decoded no finer than its whole needs, so once more where only a part counts."""
    pixels = radiograph(256, 256)
    plate = on_plate(pixels, 3, 0)
    expected = image_to_tensor(png(pixels << 4), SPEC).astype(int)
    whole = read_dicom(dicom(plate, uid.JPEG2000Lossless), SPEC.size).picture
    assert prepare(whole, SPEC).finer is not None
    for data in (dicom(plate, uid.JPEG2000Lossless), jpeg((plate >> 4).astype(np.uint8))):
        found = read_radiograph(data, SPEC)
        assert np.abs(found.tensor.astype(int) - expected).mean() < 6
        assert "small_field" not in found.warnings


def test_too_small_a_field_is_doubtful():
    """It is answered, and marked for review."""
    pixels = radiograph(50, 50)
    found = read_radiograph(png(on_plate(pixels, 3, 0) << 4), PreprocessSpec(size=32))
    assert "small_field" in found.warnings
    assert found.doubtful


def test_two_radiographs_side_by_side_are_doubtful():
    """Neither of them alone is, however wide."""
    left, right = radiograph(300, 260, seed=1), radiograph(300, 260, seed=2)[:, ::-1]
    dim = (right // 2 + 900).astype(np.uint16)
    assert "panels" in prepare(Picture(np.hstack([left, dim]), (300, 520)), SPEC).warnings
    wide = radiograph(300, 520)
    assert "panels" not in prepare(Picture(wide, wide.shape), SPEC).warnings


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("padding", [0, 4095, 65535])
def test_padding_is_no_part_of_the_picture(padding, inverted):
    """It is cut off, and what lies within the rest is dark."""
    plate = on_plate(PIXELS.clip(1, 4094), 1.7, padding)
    corner = plate == padding
    picture = Picture(plate, plate.shape, inverted=inverted, padding=corner)
    found = declared_field(picture)
    assert found.size == PIXELS.shape
    np.testing.assert_array_equal(found.pixels, PIXELS.clip(1, 4094))


def test_padding_within_the_field_is_dark():
    """As it is where the field stands at an angle; in both polarities."""
    padding = np.zeros(PIXELS.shape, bool)
    padding[:40, :40] = True
    for inverted in (False, True):
        picture = Picture(PIXELS, PIXELS.shape, inverted=inverted, padding=padding)
        found = declared_field(picture).pixels
        rest = PIXELS[~padding]
        dark = np.percentile(rest, 99 if inverted else 1)
        assert (found[:40, :40] >= dark if inverted else found[:40, :40] <= dark).all()
        np.testing.assert_array_equal(found[~padding], rest)


def test_version_1_keeps_its_reading():
    """Padding is as dark as the darkest value, and part of the picture; shutters have no say."""
    padding = np.zeros(PIXELS.shape, bool)
    padding[:40] = True
    odd = np.where(padding, np.uint16(65535), PIXELS)
    dark = np.where(padding, PIXELS[40:].min(), PIXELS)
    shown = ~padding
    found = prepare(Picture(odd, odd.shape, padding=padding, shutter=shown), OLD).tensor
    np.testing.assert_array_equal(found, tensor_of(dark, OLD))


def test_a_lossy_copy_of_padding_is_padding():
    """Compression moves it by some values; those become dark as well."""
    plate = on_plate(PIXELS.clip(200, 4094), 1.7, 0)
    data = dicom(plate, uid.JPEG2000, PixelPaddingValue=0)
    expected = image_to_tensor(png(PIXELS.clip(200, 4094) << 4), SPEC).astype(int)
    assert np.abs(image_to_tensor(data, SPEC).astype(int) - expected).mean() < 3


SHUTTER = {
    "ShutterUpperHorizontalEdge": 31,
    "ShutterLowerHorizontalEdge": 250,
    "ShutterLeftVerticalEdge": 21,
    "ShutterRightVerticalEdge": 240,
}


def test_a_rectangular_shutter_cuts():
    """Its edges count from 1, and belong to what is shown."""
    data = dicom(PIXELS, ShutterShape="RECTANGULAR", **SHUTTER)
    found = declared_field(read_dicom(data, FULL_SIZE).picture)
    np.testing.assert_array_equal(found.pixels, PIXELS[30:250, 20:240])


def test_all_shutters_must_show_a_pixel():
    """A circle within a rectangle leaves what both leave."""
    circle = {"CenterOfCircularShutter": [150, 130], "RadiusOfCircularShutter": 60}
    data = dicom(PIXELS, ShutterShape=["RECTANGULAR", "CIRCULAR"], **SHUTTER, **circle)
    shutter = read_dicom(data, FULL_SIZE).picture.shutter
    assert shutter is not None
    y, x = np.ogrid[1:301, 1:261]
    np.testing.assert_array_equal(shutter, (y - 150) ** 2 + (x - 130) ** 2 <= 3600)


def test_a_polygonal_shutter_is_drawn():
    """Its vertices are row and column in turn."""
    vertices = [51, 61, 51, 201, 251, 201, 251, 61]
    data = dicom(PIXELS, ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=vertices)
    found = declared_field(read_dicom(data, FULL_SIZE).picture)
    np.testing.assert_array_equal(found.pixels, PIXELS[50:251, 60:201])


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless])
def test_a_shutter_follows_the_reduced_size(syntax):
    """Its numbers are of the image, not of the pixels that were decoded."""
    pixels = radiograph(600, 520)
    data = dicom(
        pixels,
        syntax,
        ShutterShape="CIRCULAR",
        CenterOfCircularShutter=[300, 260],
        RadiusOfCircularShutter=200,
    )
    picture = read_dicom(data, 64).picture
    assert picture.reduction > 1
    assert picture.shutter is not None
    assert picture.shutter.mean() == pytest.approx(np.pi * 200**2 / pixels.size, rel=0.02)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [1, 1]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 2, 2]},
        {"ShutterShape": "CIRCULAR", "RadiusOfCircularShutter": 9},
    ],
)
def test_a_shutter_that_cannot_be_read_is_ignored(attributes):
    """With a warning; the picture is answered as if it had none."""
    image = read_dicom(dicom(PIXELS, **attributes), FULL_SIZE)
    assert image.warnings == ("shutter_ignored",)
    assert image.picture.shutter is None


def test_a_shutter_that_hides_all_is_ignored():
    """Such a shutter is an error of its sender."""
    hidden = dict.fromkeys(SHUTTER, 5) | {"ShutterShape": "RECTANGULAR"}
    np.testing.assert_array_equal(
        image_to_tensor(dicom(PIXELS, **hidden), SPEC), image_to_tensor(dicom(PIXELS), SPEC)
    )


def test_a_shutter_that_leaves_little_is_doubtful():
    """It is obeyed, but what is left of a chest radiograph is no chest."""
    circle = {"CenterOfCircularShutter": [150, 130], "RadiusOfCircularShutter": 30}
    found = read_radiograph(dicom(PIXELS, ShutterShape="CIRCULAR", **circle), SPEC)
    assert "small_field" in found.warnings
    assert found.doubtful
