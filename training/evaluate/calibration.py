"""What PFIs are worth as probabilities, and which of them a person should look at.

References:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017: temperature scaling, ECE.
    Angelopoulos et al., Learn then Test, Annals of Applied Statistics 19(2), 2025: bounds on
    errors by testing a fixed sequence of thresholds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.special import logit as exact_logit
from scipy.stats import beta

from model_store import Interval, Plateau
from training.evaluate.cutoff import NEAREST, logit, sigmoid
from training.evaluate.metrics import proportion
from training.evaluate.records import ReliabilityBin, ReviewBand

Values = npt.NDArray[np.floating]  # (N,)
Doubles = npt.NDArray[np.float64]  # (N,)
Labels = npt.NDArray[np.int64]  # (N,) in {0: lateral, 1: frontal}

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
ROUNDING = 1e-9  # logits; an image at the band's end belongs to it, though its logit is rounded
TENABLE = 0.5  # of the images: a band that leaves fewer of them answered is of no use


def logits_of(pfi: Values) -> Doubles:
    """(N,) PFI -> (N,) ln(p / (1 - p)), with PFIs kept within NEAREST of 0 and 1.

    A float32 softmax gives 0 or 1 where logits lie far apart; how far is lost.
    """
    doubles = pfi.astype(np.float64)  # in float32, 1 - NEAREST is already off by a per cent
    return np.asarray(exact_logit(np.clip(doubles, NEAREST, 1 - NEAREST)))


def fit_temperature(pfi: Values, labels: Labels) -> float:
    """`temperature_of` the logits of PFIs, those next to 0 and 1 clipped as in `logits_of`."""
    return temperature_of(logits_of(pfi), labels)


def temperature_of(logits: Values, labels: Labels) -> float:
    """Find the T by which two-class logits are best divided.

    It minimises the cross-entropy of softmax(logits / T), both views weighing the same.

    Args:
        logits: (N,) frontal minus lateral, of images that did not train the network.
        labels: (N,); both views must occur.

    Returns:
        T, from LOWEST to HIGHEST. 1 where every image lies on its own side of 0: then the loss
        falls as long as T does, and the images cannot say where to stop.

    Raises:
        ValueError: Only one view occurs.

    References:
        Guo et al. 2017, section 4.2.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("a temperature needs images of both views")
    margins = np.where(labels == 1, logits, -logits).astype(np.float64)
    if (margins > 0).all():
        return 1.0
    weights = 1 / np.bincount(labels)[labels]

    def loss(log_temperature: float) -> float:
        return float(weights @ np.logaddexp(0, -margins / math.exp(log_temperature)))

    ends = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(minimize_scalar(loss, bounds=ends, method="bounded").x)


def scaled(pfi: Values, temperature: float) -> Doubles:
    """(N,) PFI -> (N,) PFI with logits divided by `temperature`; 0 and 1 stay what they are.

    The graph that PfiNetwork exports divides before its softmax, where nothing is rounded to 0 or 1
    yet: the two agree to the precision of the PFI given here.
    """
    return np.asarray(expit(exact_logit(pfi.astype(np.float64)) / temperature))


def expected_calibration_error(pfi: Values, labels: Labels, bins: int = 15) -> float:
    """The mean of |mean PFI - share of frontal images| over bins, weighted by their images.

    Bins are of equal width over 0..1 and hold their lower end, the last one both. This is of the
    probability of a frontal image; Guo et al. take that of the view answered, 0.5 to 1.

    References:
        Guo et al. 2017, equation 3; Naeini et al., AAAI 2015, for the binary form.
    """
    images, pfi_sums, frontal = _binned(pfi, labels, bins)
    return float(np.abs(pfi_sums - frontal).sum() / images.sum())


def reliability(pfi: Values, labels: Labels, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram, as in `expected_calibration_error`; none that is empty."""
    images, pfi_sums, frontal = _binned(pfi, labels, bins)
    return tuple(
        ReliabilityBin(
            low=number / bins,
            high=(number + 1) / bins,
            images=int(images[number]),
            mean_pfi=float(pfi_sums[number] / images[number]),
            frontal=proportion(int(frontal[number]), int(images[number])),
        )
        for number in np.flatnonzero(images)
    )


def _binned(pfi: Values, labels: Labels, bins: int) -> tuple[npt.NDArray[Any], ...]:
    """(bins,) each: images, the sum of their PFIs, frontal images."""
    number = np.minimum((pfi * bins).astype(np.int64), bins - 1)
    weights = (None, pfi.astype(np.float64), labels)
    return tuple(np.bincount(number, each, minlength=bins) for each in weights)


def images_needed(error_bound: float, confidence: float) -> int:
    """How many images, all answered rightly, show with `confidence` that errors are so rare.

    Raises:
        ValueError: The bound or the confidence is not between 0 and 1.
    """
    for name, value in (("error bound", error_bound), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"the {name} must lie between 0 and 1, not at {value}")
    return math.ceil(math.log(1 - confidence) / math.log(1 - error_bound))


def refuse_unattainable(images: int, error_bound: float, confidence: float) -> None:
    """Refuse a bound that so many images could not show, were all of them answered rightly.

    Raises:
        ValueError: It says how many it takes, and what bound these can show.
    """
    needed = images_needed(error_bound, confidence)
    if images < needed:
        attainable = 1 - (1 - confidence) ** (1 / images)
        raise ValueError(
            f"an error bound of {error_bound:.2%} with {confidence:.0%} confidence needs {needed} "
            f"images, even without an error; {images} can show {attainable:.2%} at best"
        )


def review_band_for(
    pfi: Values,
    labels: Labels,
    threshold: float,
    error_bound: float,
    confidence: float = 0.95,
    *,
    measured_on: str,
) -> ReviewBand:
    """Find how near to the cutoff a person must look, for few errors among the other answers.

    Bands are symmetric in logits about the cutoff and reach as far as one of the images, or
    nowhere. To try all and take the narrowest that passes would test often and report the luckiest.
    Instead they are tested in an order fixed beforehand, inwards from the one that leaves half of
    the images outside (or as many as the bound needs, if that is more), up to the first that fails.
    The error rate is that of the images as they come, views not balanced.

    Args:
        pfi: (N,) of images that trained nothing and are independent: no copies of each other.
        labels: (N,)
        threshold: Frontal when PFI >= threshold. If these images chose it, the bound is a little
            optimistic: it takes the cutoff as given.
        error_bound: What the rate of wrong answers outside the band is to stay below, 0..1.
        confidence: Of the one-sided Clopper-Pearson upper limit of that rate, 0..1.
        measured_on: What these images are, for the card.

    Returns:
        The narrowest band before the first that failed.

    Raises:
        ValueError: Too few images for the bound, or the errors are too many to begin with.

    References:
        Clopper, Pearson, Biometrika 26(4), 1934; Angelopoulos et al., fixed sequence testing.
    """
    refuse_unattainable(len(pfi), error_bound, confidence)
    distances = np.abs(logits_of(pfi) - logit(threshold))
    wrong = (pfi.astype(np.float64) >= threshold) != (labels == 1)
    widths = np.unique(np.append(distances, 0.0))[::-1]
    order = np.argsort(-distances)
    outside = np.searchsorted(-distances[order], -widths - ROUNDING)
    errors = np.append(0, np.cumsum(wrong[order]))[outside]
    start = max(images_needed(error_bound, confidence), math.ceil(TENABLE * len(pfi)))
    tested = np.flatnonzero(outside >= start)
    limits = _upper_limit(errors[tested], outside[tested], confidence)
    passed = int(np.argmin(np.append(limits <= error_bound, False)))  # before the first failure
    if not passed:
        raise ValueError(_first_failure(errors[tested[0]], outside[tested[0]], limits[0]))
    chosen = tested[passed - 1]
    return ReviewBand(
        band=_around(threshold, float(widths[chosen])),
        error_bound=error_bound,
        confidence=confidence,
        attained=float(limits[passed - 1]),
        measured_on=measured_on,
        images=len(pfi),
        coverage=proportion(int(outside[chosen]), len(pfi)),
    )


def with_plateau(review: ReviewBand, plateau: Plateau) -> ReviewBand:
    """The band, and all PFIs between the plateau's ends: none of the images had one of these.

    So the images say nothing about such answers, and nothing that was counted changes.
    """
    low = float(np.nextafter(np.float32(plateau.low), np.float32(1)))
    high = float(np.nextafter(np.float32(plateau.high), np.float32(0)))
    if low > high:
        return review
    band = Interval(low=min(review.band.low, low), high=max(review.band.high, high))
    return review.model_copy(update={"band": band})


def _upper_limit(
    errors: npt.NDArray[np.int64], images: npt.NDArray[np.int64], confidence: float
) -> Doubles:
    """One-sided Clopper-Pearson; 1 where all are wrong."""
    right = images - errors
    limit = beta.ppf(confidence, errors + 1, np.maximum(right, 1))
    return np.where(right > 0, limit, 1.0)


def _first_failure(errors: int, images: int, limit: float) -> str:
    return (
        f"{errors} of the {images} answers furthest from the cutoff are wrong, so that "
        f"{limit:.2%} of such answers may be: check their labels, or accept a higher error bound"
    )


def _around(threshold: float, width: float) -> Interval:
    """Both ends `width` logits away; where logits were clipped, all PFIs up to 0 or 1."""
    low, high = (sigmoid(logit(threshold) + way * (width + ROUNDING)) for way in (-1, 1))
    return Interval(low=0.0 if low <= NEAREST else low, high=1.0 if high >= 1 - NEAREST else high)
