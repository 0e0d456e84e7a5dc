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
    block_sums,
    check_size,
    fields,
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


def stretches(values: np.ndarray, side: int, extent: float) -> np.ndarray:
    return area_mean(values, fields(side, extent, len(values)))


@few
@given(rows=SIZES, factor=st.integers(2, 9), count=st.integers(1, 99), seed=st.integers(0, 99))
def test_stretches_are_cut_exactly(rows, factor, count, seed):
    """However often each row is repeated, and wherever the cuts fall, the averages are the same."""
    values = radiograph(rows, 33, seed=seed).astype(np.float32)
    expected = stretches(values, count, rows)
    found = stretches(values.repeat(factor, axis=0), count, rows * factor)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.01)


@few
@given(rows=SIZES, columns=SIZES, factor=st.integers(1, MIN_SIDE), seed=st.integers(0, 99))
@pytest.mark.parametrize(
    ("dtype", "low"),
    [("u1", 0), ("u2", 0), (">u2", 0), ("i2", -2000), ("i2", -32768), ("i4", -9), ("f8", -0.5)],
)
def test_blocks_are_summed_exactly(dtype, low, rows, columns, factor, seed):
    """In every type, whether sums fit 16 bits or not; a remainder is completed by repetition."""
    bits = 8 if dtype == "u1" else 12 if low == -2000 else 16
    pixels = (radiograph(rows, columns, bits=bits, seed=seed).astype(float) + low).astype(dtype)
    missing = [(0, -length % factor) for length in pixels.shape]
    whole = np.pad(pixels.astype(float), missing, mode="edge")
    blocks = whole.reshape(len(whole) // factor, factor, -1, factor)
    np.testing.assert_allclose(block_sums(pixels, factor), blocks.sum(axis=(1, 3)), rtol=1e-5)


def test_a_reduced_picture_keeps_its_extent():
    """Half of 65 rows are 33 samples, the last of which stands for half a sample only."""
    pixels = np.repeat(np.arange(33, dtype=np.uint16), 2)[:65, np.newaxis].repeat(64, axis=1)
    reduced = pixels[::2, ::2]
    expected = squash(pixels, 32, (65, 64))
    np.testing.assert_allclose(squash(reduced, 32, (65, 64)), expected, rtol=1e-6)


@pytest.mark.parametrize("wavelet", ["5/3", "9/7"])
@pytest.mark.parametrize("reduce", [1, 2, 3])
@pytest.mark.parametrize("side", [32, 48, 64])
def test_wavelet_samples_stay_where_they_lie(wavelet, reduce, side):
    """A slope through the first pixels of blocks is the slope of the picture, but for its ends."""
    rows, columns = 64 << reduce, 80 << reduce
    y, x = np.mgrid[:rows, :columns]
    slope = (3 * y + 2 * x).astype(np.float64)
    points = slope[:: 1 << reduce, :: 1 << reduce]
    found = squash(points, side, slope.shape, wavelet=wavelet)
    centres = (slope[-1, -1] / 2) + np.add.outer(
        3 * rows * (np.arange(side) + 0.5) / side - 3 * rows / 2,
        2 * columns * (np.arange(side) + 0.5) / side - 2 * columns / 2,
    )
    inner = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(found[inner], centres[inner], rtol=1e-4)


@few
@given(
    extent=st.floats(32, 3000),
    side=st.integers(32, 256),
    centre=st.floats(0.05, 0.5),
    wavelet=st.sampled_from(["5/3", "9/7", None]),
)
def test_the_shares_of_a_field_are_one(extent, side, centre, wavelet):
    """No field is brighter or darker than its samples."""
    found = fields(side, extent, int(np.ceil(extent)), centre, wavelet)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1, rtol=1e-5)
    assert found.taps.min() >= 0
    assert found.taps.max() < extent + 1


@pytest.mark.parametrize("shape", [(32, 5000), (5000, 32)])
def test_a_stripe_is_squashed_along_its_length(shape):
    """Long and narrow, a picture becomes small without becoming large first."""
    pixels = radiograph(*shape)
    found = squash(pixels, 32, shape)
    long = 1 if shape[1] > shape[0] else 0
    expected = np.stack([part.mean(axis=long) for part in np.array_split(pixels, 32, axis=long)])
    if long:
        expected = expected.T
        np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), rtol=0.02)
    else:
        np.testing.assert_allclose(found.mean(axis=1), expected.mean(axis=1), rtol=0.02)


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
