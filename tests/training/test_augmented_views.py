"""The 106 children: exact where they can be, and the same wherever they are made."""

import itertools

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from training.augmentation.augmented_views import (
    CHILDREN,
    NOISE,
    ORIENTATIONS,
    SPREAD,
    as_table,
    children,
)
from training.augmentation.medians import median_2x2, median_5x5, merge_exchange, ranked
from training.augmentation.randomness import bits, keys

KINDS = torch.arange(len(CHILDREN))
BY_NAME = {child.name: kind for kind, child in enumerate(CHILDREN)}
RANDOM = {kind for kind, child in enumerate(CHILDREN) if child.spread or child.noise}
SPREAD_NAME = "as it is, pixels spread"
TURNS = [BY_NAME[f"{turn}, unchanged"] for turn in ORIENTATIONS]


def generic(*shape, seed=0):
    chooser = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=chooser, dtype=torch.uint8)


def family(picture, image=5, seed=1, kinds=KINDS):
    """All children of one (S, S) picture."""
    tensors = picture.expand(len(kinds), 1, *picture.shape)
    return children(tensors, torch.full_like(kinds, image), kinds, seed)[:, 0]


def child(picture, name, **options):
    return family(picture, kinds=torch.tensor([BY_NAME[name]]), **options)[0]


def test_an_image_has_106_different_children():
    """The paper's number, no child twice, and no name twice."""
    different = {one.numpy().tobytes() for one in family(generic(32, 32))}
    assert len(CHILDREN) == len(different) == len(BY_NAME) == 106


@pytest.mark.parametrize("side", [7, 32])
def test_the_first_child_is_the_image(side):
    """Child 0 is what was put in."""
    picture = generic(side, side)
    torch.testing.assert_close(family(picture)[0], picture.float(), rtol=0, atol=0)


@pytest.mark.parametrize("side", [7, 32, 100])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ("mirrored", lambda p: p.flip(1)),
        ("upside down", lambda p: p.flip(0)),
        ("mirrored and upside down", lambda p: p.flip(0, 1)),
        ("turned by 90 degrees", torch.rot90),
        ("turned by 90 degrees, mirrored", lambda p: torch.rot90(p).flip(1)),
        ("turned by 90 degrees, upside down", lambda p: torch.rot90(p).flip(0)),
        ("turned by 90 degrees, mirrored and upside down", lambda p: torch.rot90(p).flip(0, 1)),
    ],
)
def test_an_orientation_moves_every_pixel_and_changes_none(orientation, expected, side):
    """The orientations are torch's flips and quarter turns, to the bit, for odd sides too."""
    picture = generic(side, side)
    assert torch.equal(child(picture, f"{orientation}, unchanged"), expected(picture).float())


def test_the_orientations_are_a_group():
    """One orientation after another is always one of the eight."""
    picture = generic(9, 9)
    eight = family(picture)[TURNS]
    for first, second in itertools.product(range(8), repeat=2):
        twice = family(eight[first].to(torch.uint8))[TURNS[second]]
        assert any(torch.equal(twice, one) for one in eight)


@pytest.mark.parametrize("turn", range(8))
def test_an_appearance_is_that_of_the_turned_image(turn):
    """Turned and moved is moved after turning; bilinear weights are rounded to 1/256."""
    picture = generic(24, 24)
    oriented = family(picture)[TURNS[turn] : TURNS[turn] + 11]
    again = family(oriented[0].to(torch.uint8), kinds=KINDS[:11])
    assert torch.equal(oriented[3:], again[3:])  # translations
    torch.testing.assert_close(oriented[1:3], again[1:3], rtol=0, atol=2)


@pytest.mark.parametrize(
    ("to", "rows", "columns"),
    [("right", 0, 3), ("down", 3, 0), ("left", 0, -3), ("up", -3, 0), ("left and up", -3, -3)],
)
def test_translation_moves_whole_pixels_and_black_comes_in(to, rows, columns):
    """Three pixels, no interpolation; what left one side does not come back on the other."""
    picture = generic(20, 20)
    expected = ndimage.shift(picture.numpy(), (rows, columns), order=0, cval=0)
    np.testing.assert_array_equal(child(picture, f"as it is, 3 pixels {to}").numpy(), expected)


@pytest.mark.parametrize("degrees", [2, -2])
@pytest.mark.parametrize("side", [63, 64])
def test_rotation_is_bilinear_about_the_centre(degrees, side):
    """Anticlockwise, and within a grey level of scipy's on a smooth picture."""
    smooth = np.rint(ndimage.gaussian_filter(generic(side, side).numpy().astype(float), 2))
    ours = child(torch.tensor(smooth, dtype=torch.uint8), f"as it is, rotated by {degrees} degrees")
    expected = ndimage.rotate(smooth, degrees, reshape=False, order=1)
    np.testing.assert_allclose(ours[3:-3, 3:-3].numpy(), expected[3:-3, 3:-3], atol=1)


def test_a_child_does_not_depend_on_its_company():
    """Reordered, split into single images or mixed with others: the same to the bit."""
    tensors, images = generic(40, 1, 24, 24), torch.arange(100, 140)
    kinds = torch.randint(0, 106, (40,), generator=torch.Generator().manual_seed(2))
    kinds[:4] = torch.tensor([11, 12, 104, 105])
    together = children(tensors, images, kinds, seed=3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    shuffled = children(tensors[order], images[order], kinds[order], seed=3)
    alone = [children(tensors[i : i + 1], images[i : i + 1], kinds[i : i + 1], 3) for i in order]
    assert torch.equal(shuffled, together[order])
    assert torch.equal(torch.cat(alone), shuffled)


@pytest.mark.parametrize("change", [{"seed": 2}, {"seed": -1}, {"image": 6}])
def test_only_spread_and_noise_are_random(change):
    """Another seed or image changes these children, all of them, and no other."""
    picture = generic(24, 24)
    one, other = family(picture), family(picture, **change)
    changed = {kind for kind in range(106) if not torch.equal(one[kind], other[kind])}
    assert changed == RANDOM


@given(image=st.integers(0, 2**40), seed=st.integers(0, 2**62), value=st.integers(60, 195))
@settings(max_examples=20, deadline=None)
def test_noise_has_the_stated_strength_and_no_pattern(image, seed, value):
    """Mean 0 and sigma 10 on any grey, and neighbours that do not know of each other."""
    flat = torch.full((64, 64), value, dtype=torch.uint8)
    noise = child(flat, "as it is, noise", image=image, seed=seed) - value
    assert abs(float(noise.mean())) < 6 * NOISE / 64
    assert float(noise.std()) == pytest.approx(NOISE, rel=0.08)
    for axis in (0, 1):
        neighbours = torch.stack((noise.flatten(), noise.roll(1, axis).flatten()))
        assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 6 / 64


def test_noise_stays_within_the_grey_levels():
    """Black and white keep to 0..255, and every level is whole."""
    ends = torch.cat((torch.zeros(8, 16), torch.full((8, 16), 255))).to(torch.uint8)
    noisy = family(ends, kinds=torch.tensor(sorted(RANDOM)))
    assert 0 <= float(noisy.min()) <= float(noisy.max()) <= 255
    assert torch.equal(noisy, noisy.round())


def test_spread_takes_each_pixel_from_the_square_around_it():
    """Every offset of the 7 x 7 occurs, about equally often, and no other."""
    side = 128
    rows = child((torch.arange(side)[:, None].expand(side, side)).to(torch.uint8), SPREAD_NAME)
    columns = child((torch.arange(side).expand(side, side)).to(torch.uint8), SPREAD_NAME)
    inner = slice(SPREAD, side - SPREAD)
    down = (rows - torch.arange(side)[:, None])[inner, inner]
    right = (columns - torch.arange(side))[inner, inner]
    offsets, counts = torch.unique((down + SPREAD) * 7 + right + SPREAD, return_counts=True)
    assert offsets.tolist() == list(range(49))
    assert counts.min() > 0.75 * counts.float().mean()
    assert (rows - torch.arange(side)[:, None]).abs().max() == SPREAD


@given(side=st.integers(1, 12), seed=st.integers(0, 999), levels=st.integers(1, 256))
@settings(max_examples=40, deadline=None)
def test_medians_are_exact(side, seed, levels):
    """As scipy's at every pixel, edges and ties included."""
    values = np.random.default_rng(seed).integers(0, levels, (2, side, side + 1), dtype=np.uint8)
    five = [ndimage.median_filter(v, size=5, mode="nearest") for v in values]
    middle = [
        [ndimage.rank_filter(v.astype(float), r, size=2, mode="nearest") for r in (1, 2)]
        for v in values
    ]
    np.testing.assert_array_equal(median_5x5(torch.from_numpy(values)).numpy(), five)
    np.testing.assert_array_equal(
        median_2x2(torch.from_numpy(values)).numpy(), np.mean(middle, axis=1)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 11])
def test_the_network_sorts_everything(count):
    """By the 0-1 principle, a network that sorts all sequences of 0 and 1 sorts all sequences."""
    inputs = torch.tensor(list(itertools.product((0, 1), repeat=count)))
    ordered = torch.stack(ranked(list(inputs.T), range(count)), dim=1)
    assert torch.equal(ordered, inputs.sort(dim=1).values)


def test_batchers_network_is_the_short_one():
    """Knuth's count for sixteen values is 63 comparisons."""
    assert len(list(merge_exchange(16))) == 63


def test_the_hash_is_splitmix64():
    """Numbers that were computed with arithmetic modulo 2**64 in Python."""

    def mixed(word):
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    golden, seed, image, kind = 0x9E3779B97F4A7C15, 2**60 + 1, 1881, 105
    key = mixed((mixed((mixed(seed * golden % 2**64) + image * golden) % 2**64) + kind * golden)
                % 2**64)  # fmt: skip
    expected = [mixed((key + position * golden) % 2**64) for position in (1, 2, 3)]
    hashed = keys(seed, torch.tensor([image]), torch.tensor([kind]))
    assert [word % 2**64 for word in bits(hashed, 3)[0].tolist()] == expected


def test_the_table_counts_to_106():
    """The documentation's table names every child's number, from 0 to 105, once."""
    orientations, appearances = as_table().split("\n\n")
    first, second = (
        [int(line.split("|")[1]) for line in table.splitlines()[2:]]
        for table in (orientations, appearances)
    )
    numbers = [turn + look for turn in first for look in second[:13]] + second[13:]
    assert numbers == list(range(106))


def test_the_documentation_lists_the_children() -> None:
    """docs/children.md holds the table as the code enumerates it."""
    assert as_table() in (ROOT / "docs/children.md").read_text()
