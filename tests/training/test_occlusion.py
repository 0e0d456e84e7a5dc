"""The occlusion map points at what the answer came from."""

import numpy as np
import pytest
from scipy.special import expit

from training.study.figures.occlusion import occlusion_map

SIDE = 64


def looks_at(rows, columns, weight):
    """A model that sees the mean of one part only; grey 100 there is PFI 0.5."""

    def predict(tensors):
        assert tensors.dtype == np.uint8
        part = tensors[:, 0, rows, columns].astype(float).mean(axis=(1, 2))
        return expit(weight * (part - 100) / 100).astype(np.float32)

    return predict


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (7, 7)])
@pytest.mark.parametrize("weight", [2, -2], ids=["frontal", "lateral"])
def test_the_map_is_strongest_where_the_model_looks(row, column, weight):
    """The cell that decides has the largest value, with the sign of the view it spoke for."""
    rows, columns = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
    tensor = np.full((1, SIDE, SIDE), 100, np.uint8)
    tensor[0, rows, columns] = 200
    found = occlusion_map(looks_at(rows, columns, weight), tensor)
    assert np.unravel_index(np.abs(found).argmax(), found.shape) == (row, column)
    assert found[row, column] == pytest.approx(weight, rel=1e-3)
    far = np.maximum.outer(np.abs(np.arange(8) - row), np.abs(np.arange(8) - column)) > 1
    np.testing.assert_allclose(found[far], 0, atol=1e-6)


def test_parts_overlap_by_half_a_cell():
    """Hiding a neighbour hides half of a cell too: half of the effect."""
    tensor = np.full((1, SIDE, SIDE), 100, np.uint8)
    tensor[0, 16:24, 16:24] = 200
    found = occlusion_map(looks_at(slice(16, 24), slice(16, 24), 2.0), tensor)
    np.testing.assert_allclose(found[2, 1:4], (1, 2, 1), rtol=1e-3)


@pytest.mark.parametrize("side", [50, 64])
def test_a_certain_answer_has_a_finite_map(side):
    """PFI 1, then 0: the difference of logits stays a number."""
    tensor = np.full((1, side, side), 100, np.uint8)
    tensor[0, :4, :4] = 255
    found = occlusion_map(
        lambda tensors: (tensors[:, 0, 0, 0] == 255).astype(np.float32), tensor, cells=5
    )
    assert found.shape == (5, 5)
    assert np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(2 * np.log(1e6), rel=1e-3)
    assert np.count_nonzero(found) == 1


def test_the_image_is_left_alone():
    """A map is looked up, not drawn into the picture."""
    tensor = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
    before = tensor.copy()
    occlusion_map(lambda tensors: np.full(len(tensors), 0.5, np.float32), tensor)
    np.testing.assert_array_equal(tensor, before)
