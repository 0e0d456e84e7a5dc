"""Augmentation keeps to its range and its seed, and really changes every picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import radiograph

from training.augmentation.augment import MARKS, Augmentation, render_marks

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
