from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import radiograph

from model_store.card import PreprocessSpec
from service.imaging.errors import BlankImageError, ImageTooLargeError, ImageTooSmallError
from service.imaging.tensor import (
    MAX_PIXELS,
    MIN_SIDE,
    area_mean,
    check_size,
    pixels_to_tensor,
    squash,
)

SPEC = PreprocessSpec(size=32)
SIZES = st.integers(MIN_SIDE, 300)
SMALL = st.integers(MIN_SIDE, 63)  # doubled, a field of 1/32 still holds fewer than 4 pixels
few = settings(deadline=None, max_examples=15)


@few
@given(rows=SIZES, columns=SIZES, size=st.sampled_from([32, 64]), seed=st.integers(0, 99))
def test_a_tensor_spans_the_whole_range(rows, columns, size, seed):
    """Any picture becomes (1, S, S) uint8 with 0 and 255 at the ends of the min-max window."""
    tensor = pixels_to_tensor(
        radiograph(rows, columns, seed=seed), False, PreprocessSpec(size=size)
    )
    assert tensor.shape == (1, size, size)
    assert tensor.dtype == np.uint8
    assert (tensor.min(), tensor.max()) == (0, 255)


@few
@given(gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
def test_gain_and_offset_do_not_matter(gain, offset, seed):
    """The window undoes every positive affine change of the pixels, but for rounding."""
    pixels = radiograph(96, 80, seed=seed).astype(np.float64)
    expected = pixels_to_tensor(pixels, False, SPEC).astype(int)
    changed = pixels_to_tensor(gain * pixels + offset, False, SPEC)
    np.testing.assert_allclose(changed, expected, atol=1)


@few
@given(seed=st.integers(0, 99))
def test_inverted_is_the_negative(seed):
    """Inverting says the same as changing the sign, and mirrors the window."""
    pixels = radiograph(96, 80, seed=seed).astype(np.int32)
    inverted = pixels_to_tensor(pixels, True, SPEC)
    np.testing.assert_array_equal(inverted, pixels_to_tensor(-pixels, False, SPEC))
    upright = pixels_to_tensor(pixels, False, SPEC).astype(int)
    np.testing.assert_allclose(inverted, 255 - upright, atol=1)


def test_brighter_stays_brighter():
    """The window is monotone: more intensity never makes a darker pixel."""
    ramp = np.tile(np.arange(64, dtype=np.uint16) ** 2, (64, 1))
    assert (np.diff(pixels_to_tensor(ramp, False, SPEC)[0].astype(int), axis=1) >= 0).all()


@few
@given(rows=SMALL, columns=SMALL, seed=st.integers(0, 99))
def test_an_enlarged_picture_is_the_same_picture(rows, columns, seed):
    """Every pixel doubled, at any size and remainder, the averages do not move."""
    pixels = radiograph(rows, columns, seed=seed)
    large = pixels.repeat(2, axis=0).repeat(2, axis=1)
    expected = squash(pixels, 32, pixels.shape)
    np.testing.assert_allclose(squash(large, 32, large.shape), expected, rtol=1e-5, atol=0.01)
    assert expected.mean() == pytest.approx(pixels.mean(), rel=1e-5)


@few
@given(rows=SIZES, factor=st.integers(2, 9), count=st.integers(1, 99), seed=st.integers(0, 99))
def test_stretches_are_cut_exactly(rows, factor, count, seed):
    """However often each row is repeated, and wherever the cuts fall, the averages are the same."""
    values = radiograph(rows, 33, seed=seed).astype(np.float32)
    expected = area_mean(values, count, rows)
    found = area_mean(values.repeat(factor, axis=0), count, rows * factor)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.01)


def test_a_reduced_picture_keeps_its_extent():
    """Half of 65 rows are 33 samples, the last of which stands for half a sample only."""
    pixels = np.repeat(np.arange(33, dtype=np.uint16), 2)[:65, np.newaxis].repeat(64, axis=1)
    reduced = pixels[::2, ::2]
    np.testing.assert_allclose(squash(reduced, 32, (65, 64)), squash(pixels, 32, (65, 64)))


def test_percentiles_cut_the_extremes_off():
    """A few very bright pixels do not darken the rest when the card says so."""
    pixels = radiograph(64, 64)
    marker = pixels.copy()
    marker[:2, :2] = 65535
    spec = PreprocessSpec(size=32, window_percentiles=(1, 99))
    expected = pixels_to_tensor(pixels, False, spec)[0, 2:].astype(int)
    np.testing.assert_allclose(pixels_to_tensor(marker, False, spec)[0, 2:], expected, atol=4)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_is_blank(value):
    """Without a range there is no window."""
    with pytest.raises(BlankImageError, match="same value"):
        pixels_to_tensor(np.full((67, 101), value, np.uint16), False, SPEC)


@pytest.mark.parametrize(
    ("rows", "columns", "error"),
    [
        (1, 1, ImageTooSmallError),
        (MIN_SIDE - 1, 4000, ImageTooSmallError),
        (4000, -1, ImageTooSmallError),
        (MAX_PIXELS // 4096 + 1, 4096, ImageTooLargeError),
    ],
)
def test_sizes_beyond_a_radiograph_are_refused(rows, columns, error):
    """Too small and too large are told apart, and the size is in the message."""
    with pytest.raises(error, match=f"{rows} x {columns}"):
        check_size(rows, columns)


def test_the_limits_themselves_are_accepted():
    """MIN_SIDE and MAX_PIXELS are the last sizes that pass."""
    check_size(MIN_SIDE, MIN_SIDE)
    check_size(MAX_PIXELS // 4096, 4096)
