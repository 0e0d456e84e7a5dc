"""Comparisons, intervals, the choice and the curve: against figures worked out elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluate.cutoff import youden_plateau
from training.evaluate.metrics import proportion
from training.study.results import Candidate, Group
from training.study.statistics import (
    bootstrap,
    choose,
    clustered_bootstrap,
    compare,
    pooled_comparisons,
    youden_curve,
)

METHODS = ("fc-originals", "fc-augmented", "all-augmented")
PHOTOGRAPHS = {"colour": 1000, "full-greyscale": 1000, "subset-greyscale": 100}


def candidate(pretraining="colour", method="fc-originals", right=90, n=100, **changes):
    return Candidate(
        **{
            "name": f"{pretraining}, {method}",
            "pretraining": pretraining,
            "method": method,
            "pretraining_images": PHOTOGRAPHS[pretraining],
            "accuracy": proportion(right, n),
            "accuracy_originals": proportion(right, n),
            "loss": 0.3,
            "training_images": 1,
            "seconds": 1.0,
            "images_per_second": 1.0,
        }
        | changes
    )


def nine(right_of):
    return [candidate(kind, way, right_of(kind, way)) for kind in PHOTOGRAPHS for way in METHODS]


def test_chi_squared_is_pearsons_without_correction():
    """A textbook table, by hand: 100 (20 * 10 - 30 * 40)**2 / (50 * 50 * 60 * 40)."""
    tested = compare("?", [Group(name="a", right=20, n=50), Group(name="b", right=40, n=50)])
    assert tested.chi_squared == pytest.approx(100 * (20 * 10 - 30 * 40) ** 2 / (2500 * 2400))
    assert (tested.degrees_of_freedom, tested.p) == (1, pytest.approx(4.456e-5, rel=1e-3))


@pytest.mark.parametrize("right", [0, 1])
def test_nothing_is_said_where_all_answers_are_alike(right):
    """All right or all wrong: no chi-squared and no p, but the counts stay."""
    groups = [Group(name=name, right=right * 40, n=40) for name in "abc"]
    tested = compare("?", groups)
    assert (tested.chi_squared, tested.p, tested.degrees_of_freedom) == (None, None, 2)
    assert tested.groups == tuple(groups)


def test_each_question_pools_the_others():
    """Sums by hand over nine candidates, each of another number of right answers."""
    rights = {kind: number for number, kind in enumerate(PHOTOGRAPHS)}
    ways = {way: 10 * number for number, way in enumerate(METHODS)}
    comparisons = pooled_comparisons(nine(lambda kind, way: 60 + rights[kind] + ways[way]))
    assert {
        comparison.question: [(group.right, group.n) for group in comparison.groups]
        for comparison in comparisons
    } == {
        "pre-training": [(210, 300), (213, 300), (216, 300)],
        "augmented or not": [(213, 300), (183, 300)],
        "all layers or fully connected only": [(243, 300), (213, 300)],
    }


def test_a_question_without_two_groups_is_left_out():
    """Pre-training of one kind cannot be compared; the methods can."""
    of_colour = [one for one in nine(lambda *_: 90) if one.pretraining == "colour"]
    asked = [comparison.question for comparison in pooled_comparisons(of_colour)]
    assert asked == ["augmented or not", "all layers or fully connected only"]


@pytest.mark.parametrize(
    "worse",
    [
        candidate(right=94, loss=0.0, pretraining_images=10**6),
        candidate(right=95, loss=0.0, pretraining_images=99),
        candidate(right=95, loss=0.2, pretraining_images=100),
    ],
    ids=["accuracy", "pre-training images", "loss"],
)
def test_the_choice_goes_by_accuracy_then_pretraining_then_loss(worse):
    """Each criterion decides where all before it are equal, whatever the order."""
    best = candidate(right=95, loss=0.1, pretraining_images=100)
    assert choose([worse, best]) is choose([best, worse]) is best


def test_the_bootstrap_of_independent_values_is_the_normal_interval():
    """For 1000 values, within a tenth of 1.96 standard errors."""
    values = np.random.default_rng(0).normal(3, 2, 1000)
    error = 1.96 * values.std() / np.sqrt(1000)
    low, high = bootstrap(values, seed=1)
    assert low == pytest.approx(values.mean() - error, abs=error / 10)
    assert high == pytest.approx(values.mean() + error, abs=error / 10)


def test_copies_of_an_image_do_not_narrow_the_clustered_interval():
    """Each patient's value ten times over: the interval of the patients, not of the copies."""
    values = np.random.default_rng(0).random(80) < 0.8
    patients = np.array([f"p{number}" for number in range(80)])
    once = clustered_bootstrap(values, patients, seed=3)
    copied = clustered_bootstrap(values.repeat(10), patients.repeat(10), seed=3)
    assert copied == pytest.approx(once)
    low, high = bootstrap(values.repeat(10), seed=3)
    assert high - low < (once[1] - once[0]) / 2


@given(
    wrong=st.integers(0, 30),
    seed=st.integers(0, 99),
    confidence=st.sampled_from([0.5, 0.9, 0.95]),
)
@settings(max_examples=25, deadline=None)
def test_intervals_hold_the_mean_and_repeat(wrong, seed, confidence):
    """Within 0..1, around the mean, and equal for equal seeds."""
    values = np.arange(60) >= wrong
    clusters = np.arange(60) % 17
    low, high = clustered_bootstrap(values, clusters, seed, 400, confidence)
    assert 0 <= low <= values.mean() <= high <= 1
    assert (low, high) == clustered_bootstrap(values, clusters, seed, 400, confidence)


def test_an_interval_of_equal_values_has_no_width():
    """All right: from 1 to 1, as documented."""
    assert clustered_bootstrap(np.ones(20), np.arange(20) // 2, seed=0) == (1.0, 1.0)


PFI = np.array([0.2, 0.9, 0.95, 0.1, 0.3, 0.6], dtype=np.float32)
LABELS = np.array([1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("cutoff", "youden_j"),
    [
        *((0, 0), (0.1, 0), (0.101, 1 / 3), (0.2, 1 / 3), (0.201, 0), (0.301, 1 / 3)),
        *((0.6, 1 / 3), (0.601, 2 / 3), (0.9, 2 / 3), (0.901, 1 / 3), (1, 0)),
    ],
)
def test_the_curve_is_sensitivity_plus_specificity_minus_one(cutoff, youden_j):
    """Counted by hand at cutoffs on and beside the PFIs: a PFI equal to the cutoff is frontal."""
    curve = youden_curve(PFI, LABELS, "six images")
    assert curve.cutoffs[round(cutoff * 1000)] == cutoff
    assert curve.youden_j[round(cutoff * 1000)] == pytest.approx(youden_j)


def test_the_curve_is_highest_on_the_plateau():
    """The plateau that the cutoff comes from is where the curve is highest."""
    plateau, curve = youden_plateau(PFI, LABELS, ""), youden_curve(PFI, LABELS, "six images")
    best = [c for c, j in zip(curve.cutoffs, curve.youden_j, strict=True) if j > 0.66]
    assert (min(best), max(best)) == pytest.approx((plateau.low, plateau.high), abs=0.0011)
    assert (len(curve.cutoffs), curve.cutoffs[0], curve.cutoffs[-1]) == (1001, 0, 1)
    assert max(curve.youden_j) == pytest.approx(plateau.youden_j)


@pytest.mark.parametrize("view", [0, 1])
def test_a_curve_needs_both_views(view):
    """Of one view, J does not exist."""
    with pytest.raises(ValueError, match="both views"):
        youden_curve(PFI, np.full(6, view), "one view")
