"""Youden's plateau against its definition, tried at every cutoff."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import Plateau
from training.evaluate.cutoff import choose_threshold, logit, review_band, sigmoid, youden_plateau


def youden(pfi: np.ndarray, labels: np.ndarray, cutoff: float) -> float:
    """The definition: sensitivity + specificity - 1."""
    called = pfi >= cutoff
    return float(called[labels == 1].mean() + (~called)[labels == 0].mean() - 1)


scores = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=12)


@given(scores, scores)
def test_the_plateau_is_where_j_is_maximal(frontal: list[float], lateral: list[float]) -> None:
    """No cutoff anywhere has a higher J, and every cutoff within (low, high] has the same."""
    pfi = np.array(frontal + lateral)
    labels = np.array([1] * len(frontal) + [0] * len(lateral))
    plateau = youden_plateau(pfi, labels, "test")
    everywhere = [youden(pfi, labels, cutoff) for cutoff in np.arange(0, 1.0001, 0.005)]
    assert plateau.youden_j == pytest.approx(max(everywhere))
    width = plateau.high - plateau.low
    for cutoff in (plateau.low + 0.001 * width, plateau.low + 0.5 * width, plateau.high):
        assert youden(pfi, labels, cutoff) == pytest.approx(plateau.youden_j)
    for rule in ("middle", "high"):
        threshold = choose_threshold(plateau, rule)
        assert plateau.low <= threshold <= plateau.high


def test_a_clean_gap_is_the_plateau() -> None:
    """Between the highest lateral and the lowest frontal; the paper takes the upper end."""
    plateau = youden_plateau(np.array([0.02, 0.1, 0.9, 0.98]), np.array([0, 0, 1, 1]), "four")
    assert (plateau.low, plateau.high, plateau.youden_j) == (0.1, 0.9, 1.0)
    assert (plateau.measured_on, plateau.images) == ("four", 4)
    assert choose_threshold(plateau, "middle") == pytest.approx(0.5)
    assert choose_threshold(plateau, "high") == 0.9


def test_the_widest_in_logits_wins() -> None:
    """Of two equal maxima the one that is widest in logits is taken, though narrower in PFI."""
    pfi = np.array([0.0001, 0.0999, 0.1, 0.4, 0.5])
    labels = np.array([0, 1, 0, 1, 1])
    assert youden(pfi, labels, 0.05) == pytest.approx(1 - 0.5)
    plateau = youden_plateau(pfi, labels, "test")
    assert plateau.youden_j == pytest.approx(2 / 3)
    assert plateau.low == 0.1


def test_one_view_has_no_cutoff() -> None:
    """Without both views, sensitivity or specificity does not exist."""
    with pytest.raises(ValueError, match="both views"):
        youden_plateau(np.array([0.5]), np.array([1]), "one")


@pytest.mark.parametrize("pfi", [1e-6, 0.01, 0.5, 0.99, 1 - 1e-6])
def test_logit_and_sigmoid_undo_each_other(pfi: float) -> None:
    """Within what a softmax of float32 can tell apart."""
    assert sigmoid(logit(pfi)) == pytest.approx(pfi)
    assert logit(0) == logit(1e-7)


def test_the_band_is_the_plateau_unless_that_is_narrow() -> None:
    """A wide plateau is the band; a narrow one is widened to the margin on both sides."""
    wide = Plateau(low=0.01, high=0.99, youden_j=1, measured_on="test", images=2)
    assert review_band(wide, 0.5, 1.0).model_dump() == {"low": 0.01, "high": 0.99}
    narrow = Plateau(low=0.499, high=0.501, youden_j=1, measured_on="test", images=2)
    band = review_band(narrow, 0.5, 1.0)
    assert (band.low, band.high) == pytest.approx((sigmoid(-1), sigmoid(1)))
