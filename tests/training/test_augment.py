"""Augmentation keeps to its range and its seed, and really changes every picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import radiograph

from training.augmentation.augment import (
    ASKED,
    MARKS,
    UNKNOWN,
    Augmentation,
    Chances,
    Varied,
    orientation_of,
    render_marks,
)
from training.augmentation.scenes import Scenes

SIZE = 64


def batch(count: int, size: int = 2 * SIZE) -> torch.Tensor:
    picture = radiograph(size, size, bits=8).astype(np.uint8)
    return torch.from_numpy(np.stack([picture[np.newaxis]] * count))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), level=st.sampled_from([0, 128, 255]))
def test_the_range_is_kept(seed: int, level: int) -> None:
    """Whatever happens to a picture, black and white ones too, it stays finite within 0..255."""
    tensors = batch(16)
    tensors[::2] = level
    found = Augmentation(seed, SIZE)(tensors)
    assert found.shape == (16, 1, SIZE, SIZE)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255


def test_halves_and_corners_are_parts_of_the_image() -> None:
    """Without another move, what is cut out lies within the image and is about half as wide."""
    augmentation = Augmentation(0, SIZE, chances=Chances(half=1))
    chosen, cut, centre = augmentation._half(torch.zeros(300))
    assert chosen.all()
    assert ((centre.abs() + cut) <= 1 + 1e-6).all()
    whole = cut == 1
    for kind in (whole[0], whole[1], ~whole.any(dim=0)):  # lying, upright, a corner
        assert 60 < kind.sum() < 140
    assert not whole.all(dim=0).any()
    assert cut[~whole].min() >= 0.45
    assert cut[~whole].max() <= 0.6
    # all four halves and corners
    assert len(torch.unique(centre.sign(), dim=1).T) == 8


def test_without_halves_nothing_else_is_drawn() -> None:
    """The chance of a half changes no batch where it is none."""
    found = Augmentation(3, SIZE, chances=Chances(half=0))(batch(8))
    torch.testing.assert_close(found, Augmentation(3, SIZE)(batch(8)), rtol=0, atol=0)


def test_a_seed_is_a_sequence() -> None:
    """Equal seeds repeat every batch, other seeds do not, and a saved state is taken up."""
    one, two, other = Augmentation(1, SIZE), Augmentation(1, SIZE), Augmentation(2, SIZE)
    first = one(batch(4))
    torch.testing.assert_close(first, two(batch(4)), rtol=0, atol=0)
    assert not torch.equal(first, other(batch(4)))
    state = one.random.get_state()
    expected = one(batch(4))
    other.random.set_state(state)
    other.marks = one.marks
    torch.testing.assert_close(other(batch(4)), expected, rtol=0, atol=0)


def test_each_picture_is_transformed_by_itself() -> None:
    """Two hundred copies of one picture become two hundred pictures, all unlike the original."""
    found = Augmentation(0, SIZE)(batch(200))
    distances = (found - batch(1, SIZE).float()).abs().mean(dim=(1, 2, 3))
    assert (distances > 0.5).float().mean() > 0.95
    assert len({tuple(picture.flatten()[:50].tolist()) for picture in found}) > 190


@pytest.mark.parametrize("step", ["_expose", "_move", "_hide", "_write", "_degrade"])
def test_every_step_spares_some_and_changes_some(step: str) -> None:
    """No step is a certainty, and none does nothing."""
    augmentation = Augmentation(0, SIZE)
    tensors = batch(64, SIZE).float() / 255
    found = getattr(augmentation, step)(tensors.clone())
    found = found if torch.is_tensor(found) else found[0]  # some also say what they did
    changed = ((found - tensors).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()
    assert changed > 0.2
    if step != "_move":  # which always moves a little
        assert changed < 1


def test_marks_are_ink_on_nothing() -> None:
    """Each rendered mark has some ink and mostly none."""
    marks = render_marks(0)
    assert marks.shape[0] == MARKS
    assert ((marks >= 0) & (marks <= 1)).all()
    inked = marks.mean(axis=(1, 2, 3))
    assert (inked < 0.6).all()
    assert (inked > 0).mean() > 0.9


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("flip", [1, -1])
def test_orientation_says_how_to_undo_it(quarter: int, mirror: int, flip: int) -> None:
    """Turned clockwise by what is told, and then mirrored if told so, it is the original."""
    original = np.arange(12).reshape(3, 4)
    moved = np.rot90(original, quarter)  # counter-clockwise
    moved = moved[:, ::-1] if mirror < 0 else moved
    moved = moved[::-1] if flip < 0 else moved
    found = orientation_of(*(torch.tensor([float(v)]) for v in (90 * quarter, mirror, flip)))
    quarters, mirrored = (int(each) for each in found)
    undone = np.rot90(moved, -quarters)
    np.testing.assert_array_equal(undone[:, ::-1] if mirrored else undone, original)


@pytest.mark.parametrize(
    ("degrees", "quarters"), [(29, 0), (31, UNKNOWN), (59, UNKNOWN), (61, 1), (-29, 0), (-61, 3)]
)
def test_between_two_quarters_it_is_not_known_which_way_is_up(degrees: int, quarters: int) -> None:
    """Up to 30 degrees from a quarter it is."""
    one = torch.ones(1)
    assert orientation_of(degrees * one, one, one)[0].tolist() == [quarters]


def likenesses(varied: Varied, original: torch.Tensor) -> list[dict[tuple[int, int], float]]:
    """Of each picture, its correlation with the original when undone in each of eight ways."""
    all_ways = []
    for found, inverted in zip(varied.tensors[:, 0], varied.inverted, strict=True):
        shown = 255 - found if inverted else found
        ways = {}
        for turns in range(4):
            upright = torch.rot90(shown, -turns)
            for swapped in range(2):
                undone = upright.flip(1) if swapped else upright
                pair = torch.stack((undone.flatten(), original.flatten()))
                ways[turns, swapped] = float(torch.corrcoef(pair)[0, 1])
        all_ways.append(ways)
    return all_ways


@pytest.fixture(scope="module")
def lopsided() -> tuple[Varied, list[dict[tuple[int, int], float]]]:
    """300 variations of a picture with a bright spot and a dark quarter, and their likenesses."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    picture = 120 + 100 * np.exp(-((x - 0.4) ** 2 + (y + 0.5) ** 2) / 0.05) - 60 * (x > 0) * (y > 0)
    tensors = torch.from_numpy(np.stack([picture[np.newaxis].astype(np.uint8)] * 300))
    varied = Augmentation(3, SIZE, chances=ASKED).vary(tensors)
    original = torch.nn.functional.avg_pool2d(tensors[:1].float(), 2)[0, 0]
    return varied, likenesses(varied, original)


def test_what_is_told_of_a_transformed_picture_is_true(
    lopsided: tuple[Varied, list[dict[tuple[int, int], float]]],
) -> None:
    """Undone as told, most pictures are more like the original than undone in any other way."""
    varied, all_ways = lopsided
    right = [
        max(ways, key=ways.__getitem__) == (int(quarters), int(mirrored))
        for ways, quarters, mirrored in zip(all_ways, varied.quarters, varied.mirrored, strict=True)
        if UNKNOWN not in (quarters, mirrored)
    ]
    assert len(right) > 100
    assert np.mean(right) > 0.8  # text and smaller hidden parts cover some pictures


def test_handedness_is_not_asked_of_half_a_picture(
    lopsided: tuple[Varied, list[dict[tuple[int, int], float]]],
) -> None:
    """Where it is not asked, few pictures look like the original in any way of undoing them."""
    varied, all_ways = lopsided
    best = np.array([np.nan_to_num(max(ways.values())) for ways in all_ways])
    unknown = (varied.mirrored == UNKNOWN).numpy()
    assert 0.3 < unknown.mean() < 0.6
    assert np.mean(best[~unknown] > 0.8) > 2 * np.mean(best[unknown] > 0.8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), level=st.sampled_from([0, 128, 255]))
def test_scenes_keep_the_range(seed: int, level: int) -> None:
    """With all scenes, any picture stays finite within 0..255."""
    tensors = batch(16)
    tensors[::2] = level
    found = Augmentation(seed, SIZE, chances=ASKED, scenes=True)(tensors)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize(
    "scene", ["_arms", "_collimate", "_shrink", "_flatten", "_tilt", "_frame", "_plate", "_screen"]
)
def test_every_scene_changes_the_picture(scene: str) -> None:
    """And keeps its shape."""
    random = torch.Generator().manual_seed(1)
    tensors = batch(8, SIZE).float() / 255
    tensors[1::2] = tensors[1::2].flip(3)
    found = getattr(Scenes(random, torch.device("cpu")), scene)(tensors.clone())
    assert found.shape == tensors.shape
    assert ((found - tensors).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean() > 0.6
