"""Youden's cutoff: the whole plateau of maximal J, and the point of it that decides.

References:
    Youden, Index for rating diagnostic tests, Cancer 3(1), 1950; the paper's Figure 5.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from model_store import HeadCutoff, Interval, Plateau

Rule = Literal["middle", "high"]

# A float32 softmax cannot tell PFIs beyond this from 0 and 1; their logits would be infinite.
NEAREST = 1e-6
HEADS_MARGIN = 1.0  # logits: review bands of the other heads reach at least so far to both sides

# Of chest radiographs, on validation images in all 16 ways to lie, so many may be called not_chest
# at most; as they are, fewer. What is flagged wrongly is lost to who looks for chests; a hand that
# is let through can be found later
FLAGGED_CHESTS = 5e-3
# Of halves and quarters of chest radiographs, so many may be called not_chest without a mark: no
# head can tell each of them from a hand or a knee, but a person can
UNMARKED_PIECES = 0.02


def logit(pfi: float) -> float:
    """ln(p / (1 - p)), with `pfi` kept within NEAREST of 0 and 1."""
    p = min(max(pfi, NEAREST), 1 - NEAREST)
    return math.log(p / (1 - p))


def sigmoid(value: float) -> float:
    """The inverse of `logit`."""
    return 1 / (1 + math.exp(-value))


def youden_plateau(
    pfi: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], measured_on: str
) -> Plateau:
    """Find the cutoffs (frontal when PFI >= cutoff) of maximal sensitivity + specificity - 1.

    Args:
        pfi: (N,) within 0..1.
        labels: (N,) in {0: lateral, 1: frontal}; both must occur.
        measured_on: What these images are, for the card.

    Returns:
        The plateau; where maxima lie apart, the one that is widest in logits.

    Raises:
        ValueError: Only one view occurs.
    """
    frontal, lateral = int(labels.sum()), int((1 - labels).sum())
    if not frontal or not lateral:
        raise ValueError("a cutoff needs images of both views")
    cutoffs = np.unique(pfi)
    below = np.searchsorted(np.sort(pfi[labels == 1]), cutoffs)  # frontals called lateral
    kept = lateral - np.searchsorted(np.sort(pfi[labels == 0]), cutoffs)  # laterals called frontal
    # J * frontal * lateral, in whole numbers, so that equal means equal
    youden = (frontal - below) * lateral - kept * frontal
    best = np.flatnonzero(youden == youden.max())
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    edges = np.concatenate(([0.0], cutoffs))  # each cutoff stands for all down to the PFI below it
    ends = [(float(edges[run[0]]), float(edges[run[-1] + 1])) for run in runs]
    low, high = max(ends, key=lambda pair: logit(pair[1]) - logit(pair[0]))
    j = float(youden.max()) / (frontal * lateral)
    return Plateau(low=low, high=high, youden_j=j, measured_on=measured_on, images=len(pfi))


def choose_threshold(plateau: Plateau, rule: Rule) -> float:
    """The plateau's middle in logits, or its upper end (the paper's choice)."""
    if rule == "high":
        return plateau.high
    middle = sigmoid((logit(plateau.low) + logit(plateau.high)) / 2)
    return min(max(middle, plateau.low), plateau.high)


def does_as_well(plateau: Plateau, threshold: float) -> bool:
    """Whether a cutoff does as well on the plateau's images as any other."""
    return plateau.low < threshold <= plateau.high


def review_band(plateau: Plateau, threshold: float, margin_logits: float) -> Interval:
    """The plateau, widened where it is narrow to `margin_logits` on both sides of the threshold."""
    return Interval(
        low=min(plateau.low, sigmoid(logit(threshold) - margin_logits)),
        high=max(plateau.high, sigmoid(logit(threshold) + margin_logits)),
    )


def chest_cutoff(
    chest: npt.NDArray[np.float32],
    is_chest: npt.NDArray[np.bool_],
    pieces: npt.NDArray[np.float32],
    margin_logits: float,
    measured_on: str,
) -> HeadCutoff:
    """Where an image stops being a chest radiograph.

    Args:
        chest: (N,) probabilities of a chest radiograph.
        is_chest: (N,)
        pieces: (M,) the same probabilities of halves and quarters of chest radiographs.
        margin_logits: The review band reaches at least so far to both sides.
        measured_on: What the N images are, for the card.

    Returns:
        The middle of Youden's plateau in logits, or what calls no more than FLAGGED_CHESTS of the
        chest radiographs not_chest, if that is lower. The band reaches down until no more than
        UNMARKED_PIECES lie below it.
    """
    plateau = youden_plateau(chest, is_chest.astype(np.int64), measured_on)
    lowest = float(np.quantile(chest[is_chest], FLAGGED_CHESTS, method="lower"))
    threshold = min(choose_threshold(plateau, "middle"), lowest)
    marked = float(np.quantile(pieces, UNMARKED_PIECES, method="lower"))
    return HeadCutoff(
        threshold=threshold,
        threshold_rule="middle of Youden's plateau in logits, or lower, so that at most "
        f"{FLAGGED_CHESTS:.1%} of the chest radiographs of these images lie below it; the review "
        f"band reaches down until at most {UNMARKED_PIECES:.0%} of their halves and quarters lie "
        "below it",
        plateau=plateau,
        review_band=Interval(
            low=min(threshold, marked, sigmoid(logit(threshold) - margin_logits)),
            high=max(threshold, sigmoid(logit(threshold) + margin_logits)),
        ),
    )
