"""A site's labelled images, and what a cutoff fitted on them changes: in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from model_store import (
    Evaluation,
    Heads,
    ModelCard,
    ModelVersion,
    Plateau,
    Point,
    Proportion,
    Side,
    SiteReport,
)
from training.data.manifest import Row
from training.evaluate.calibration import (
    Doubles,
    Labels,
    expected_calibration_error,
    reliability,
)
from training.evaluate.cutoff import Rule, does_as_well
from training.evaluate.metrics import (
    OperatingPoint,
    as_table,
    evaluate,
    proportion,
    sources_of,
)
from training.evaluate.records import ReviewBand

IN_SAMPLE = (
    "Cutoff and band were chosen on these very images: figures after the choice are optimistic. "
    "Believe the cross-fitted row, and test on other images."
)


class Site(NamedTuple):
    """A site's labelled images, and what the parent makes of them."""

    rows: Sequence[Row]
    labels: Labels
    pfi: Doubles

    @property
    def name(self) -> str:
        """As it stands in the card."""
        return f"{len(self.rows)} images of {', '.join(sources_of(self.rows))}"

    def wrong(self, threshold: float) -> int:
        """Images on the wrong side of a cutoff."""
        return int(((self.pfi >= threshold) != (self.labels == 1)).sum())


class Reading(NamedTuple):
    """How the site's PFIs are to be read."""

    rule: Rule
    plateau: Plateau
    threshold: float
    review: ReviewBand

    def allows(self, threshold: float) -> bool:
        """Whether a cutoff does as well on the site's images as the new one."""
        return does_as_well(self.plateau, threshold)


def report_of(
    parent: ModelCard, fitted: ModelCard, site: Site, reading: Reading, row: Evaluation
) -> SiteReport:
    """The report of a calibration; `row` is the cross-fitted one."""
    old = OperatingPoint(parent.threshold, parent.review_band)
    name = f"calibration images, cutoff of {_reference(parent)}"
    before = evaluate(name, site.pfi.astype(np.float32), site.rows, old)
    return SiteReport(
        images=row.images,
        patients=row.patients,
        rule=reading.rule,
        error_bound=reading.review.error_bound,
        confidence=reading.review.confidence,
        attained=reading.review.attained,
        change_needed=not reading.allows(parent.threshold),
        before=_side(parent, before),
        after=_side(fitted, row),
    )


def describe(parent: ModelVersion, site: Site, reading: Reading, row: Evaluation) -> str:
    """The findings in words, for the one who decides whether to serve the new version."""
    old, new, plateau = parent.card.threshold, reading.threshold, reading.plateau
    band, review = reading.review.band, reading.review
    unchanged = "; the old one lies within the plateau: no change was needed"
    told = unchanged if reading.allows(old) else ""
    limit = f"{review.attained:.2%} errors ({review.confidence:.0%} confidence)"
    lines = (
        f"{site.name}, answered by {parent.reference}",
        *_calibration_lines(site),
        f"cutoff of {parent.reference}: {old:.4f}, {site.wrong(old)} wrong",
        f"Youden plateau here: {plateau.low:.4f} to {plateau.high:.4f}, J {plateau.youden_j:.4f}",
        f"new cutoff ({reading.rule}): {new:.4f}, {site.wrong(new)} wrong in-sample{told}",
        f"review band: {band.low:.4f} to {band.high:.4f}",
        f"outside it: {review.coverage.value:.1%} of the images, with at most {limit}",
        as_table([row]),
        IN_SAMPLE,
    )
    return "\n".join(lines)


def _reference(card: ModelCard) -> str:
    return f"{card.name}/{card.version}"


def _side(card: ModelCard, row: Evaluation) -> Side:
    return Side(
        model=_reference(card),
        view=Point(cutoff=card.threshold, band=card.review_band),
        heads=dict(_points(card.heads)),
        errors=_errors(row.accuracy),
        frontal_errors=_errors(row.sensitivity),
        lateral_errors=_errors(row.specificity),
        review=row.review,
    )


def _points(heads: Heads) -> Iterator[tuple[str, Point]]:
    for name in ("chest", "inverted", "mirrored"):
        cutoff = getattr(heads, name)
        if cutoff is not None:
            yield name, Point(cutoff=cutoff.threshold, band=cutoff.review_band)


def _errors(right: Proportion | None) -> Proportion:
    assert right is not None  # a cutoff is fitted on images of both views only
    return proportion(right.n - right.count, right.n)


def _calibration_lines(site: Site) -> Iterator[str]:
    error = expected_calibration_error(site.pfi, site.labels)
    yield f"expected calibration error of these PFIs: {error:.4f}"
    for each in reliability(site.pfi, site.labels):
        share = f"{each.frontal.count} of {each.images} frontal"
        yield f"  PFI {each.low:.1f} to {each.high:.1f}, mean {each.mean_pfi:.3f}: {share}"
