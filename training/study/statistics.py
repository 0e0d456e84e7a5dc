"""What a study's numbers allow to say: comparisons, bootstrap intervals, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency

from training.evaluate.metrics import Pfi
from training.study.results import Candidate, Comparison, Curve, Group, Method, Pretraining

Values = npt.NDArray[np.floating | np.integer | np.bool_]

CUTOFFS = np.arange(1001) / 1000
# question -> pre-training or method -> what the group of these candidates is called
QUESTIONS: dict[str, dict[Pretraining | Method, str]] = {
    "pre-training": {
        "colour": "all photographs in colour",
        "full-greyscale": "all photographs in grey",
        "subset-greyscale": "a subset in grey",
    },
    "augmented or not": {"fc-augmented": "augmented", "fc-originals": "not augmented"},
    "all layers or fully connected only": {
        "all-augmented": "all layers",
        "fc-augmented": "fully connected only",
    },
}


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate of the highest validation accuracy, images and children together.

    Of equals, the one pre-trained on more images; of these, the one of the lower loss.
    """
    return max(candidates, key=lambda c: (c.accuracy.value, c.pretraining_images, -c.loss))


def pooled_comparisons(candidates: Sequence[Candidate]) -> tuple[Comparison, ...]:
    """The paper's three questions, each pooled over what it does not ask about.

    Like is compared with like: augmentation where only the last layer is trained, and trained
    layers where there is augmentation, because no candidate trains all layers on originals alone.
    A question is left out where fewer than two of its groups have candidates.
    """
    asked = {
        question: [_pooled(name, trait, candidates) for trait, name in groups.items()]
        for question, groups in QUESTIONS.items()
    }
    answerable = {q: [group for group in groups if group.n] for q, groups in asked.items()}
    return tuple(compare(q, groups) for q, groups in answerable.items() if len(groups) > 1)


def _pooled(name: str, trait: str, candidates: Sequence[Candidate]) -> Group:
    pooled = [c.accuracy for c in candidates if trait in {c.pretraining, c.method}]
    return Group(name=name, right=sum(a.count for a in pooled), n=sum(a.n for a in pooled))


def compare(question: str, groups: Sequence[Group]) -> Comparison:
    """Pearson's chi-squared on right and wrong answers, without continuity correction.

    It takes answers for independent, as the paper did. Children of one image, and candidates that
    answer the same images, are not: p is too small rather than too large.

    Args:
        question: What the groups differ in.
        groups: Two or more, each of at least one answer.

    Returns:
        The test; chi-squared and p are None where every answer was right, or every one wrong.

    References:
        Pearson, On the criterion that a given system of deviations ..., Phil Mag 50(302), 1900.
    """
    table = np.array([(group.right, group.n - group.right) for group in groups])
    tested = chi2_contingency(table, correction=False) if table.sum(axis=0).all() else None
    return Comparison(
        question=question,
        groups=tuple(groups),
        chi_squared=float(tested.statistic) if tested else None,
        degrees_of_freedom=len(groups) - 1,
        p=float(tested.pvalue) if tested else None,
    )


def bootstrap(
    values: Values, seed: int, repeats: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """`clustered_bootstrap` of values that are independent: each is its own cluster."""
    return clustered_bootstrap(values, np.arange(len(values)), seed, repeats, confidence)


def clustered_bootstrap(
    values: Values,
    clusters: npt.NDArray[np.generic],
    seed: int,
    repeats: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a mean where values of one cluster (a patient) hang together.

    Whole clusters are drawn with replacement. Values that are all equal give an interval of no
    width, which says that the bootstrap cannot tell, not that the mean is known exactly.

    Args:
        values: (N,) as 1 for a right answer and 0 for a wrong one; N at least 1.
        clusters: (N,) which cluster a value is of.
        seed: Equal seeds give equal intervals.
        repeats: Resamples.
        confidence: Within 0..1.

    Returns:
        The lower and the upper end.

    References:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    _, cluster_of = np.unique(clusters, return_inverse=True)
    counts = np.bincount(cluster_of)
    sums = np.bincount(cluster_of, weights=values)
    chooser = np.random.default_rng(seed)
    means = np.empty(repeats)
    for repeat in range(repeats):  # one at a time: all at once would be repeats times the clusters
        drawn = chooser.integers(len(counts), size=len(counts))
        means[repeat] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def youden_curve(pfi: Pfi, labels: npt.NDArray[np.int64], measured_on: str) -> Curve:
    """Sensitivity + specificity - 1 by cutoff, frontal when PFI >= cutoff.

    Args:
        pfi: (N,) within 0..1.
        labels: (N,) in {0: lateral, 1: frontal}; both must occur.
        measured_on: What these images are.

    Raises:
        ValueError: Only one view occurs.

    References:
        Youden, Index for rating diagnostic tests, Cancer 3(1), 1950; the paper's Figure 5.
    """
    frontals, laterals = np.sort(pfi[labels == 1]), np.sort(pfi[labels == 0])
    if not len(frontals) or not len(laterals):
        raise ValueError("Youden's J needs images of both views")
    # in the PFIs' own precision, as `evaluate` compares
    cutoffs = CUTOFFS.astype(pfi.dtype)
    missed = np.searchsorted(frontals, cutoffs) / len(frontals)
    spared = np.searchsorted(laterals, cutoffs) / len(laterals)
    return Curve(
        measured_on=measured_on,
        cutoffs=tuple(CUTOFFS.tolist()),
        youden_j=tuple((spared - missed).tolist()),
    )
