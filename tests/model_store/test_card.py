"""What a card may say, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model_store import Interval, ModelCard, ModelVersion, Plateau, PreprocessSpec

BOUND: dict[str, Any] = {
    "error_bound": 0.05,
    "confidence": 0.95,
    "attained": 0.0495,
    "coverage": {"count": 59, "n": 60, "value": 59 / 60, "ci95": (0.9, 1.0)},
    "measured_on": "60 images",
}


@pytest.fixture
def card(version: ModelVersion) -> ModelCard:
    plateau = Plateau(low=0.2, high=0.6, youden_j=1.0, measured_on="test", images=10)
    changes = {"plateau": plateau, "threshold": 0.4, "review_band": Interval(low=0.2, high=0.6)}
    return version.card.model_copy(update=changes)


@pytest.mark.parametrize(
    ("pfi", "view", "review"),
    [
        (0.0, "lateral", False),
        (0.199, "lateral", False),
        (0.2, "lateral", True),
        (0.399, "lateral", True),
        (0.4, "frontal", True),
        (0.6, "frontal", True),
        (0.601, "frontal", False),
        (1.0, "frontal", False),
    ],
)
def test_the_cutoff_decides_and_the_band_marks(
    card: ModelCard, pfi: float, view: str, review: bool
) -> None:
    """Frontal from the threshold on, upwards; review within the band, ends included."""
    assert card.decide(pfi) == (view, review)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.1}, "outside its plateau"),
        ({"review_band": {"low": 0.5, "high": 0.6}}, "outside its review_band"),
        ({"review_band": {"low": 0.6, "high": 0.2}}, "low 0.6 exceeds high 0.2"),
        ({"version": "latest"}, "version"),
        ({"name": "../evil"}, "name"),
        ({"model_sha256": "abc"}, "model_sha256"),
        ({"threshhold": 0.5}, "threshhold"),
        ({"card_version": 2}, "card_version"),
        ({"probe_tolerance": 0.5}, "probe_tolerance"),
        ({"temperature": 0}, "temperature"),
        ({"review_error_bound": BOUND | {"error_bound": 0.0}}, "error_bound"),
        ({"review_error_bound": BOUND | {"confidence": 1}}, "confidence"),
        ({"review_error_bound": BOUND | {"attained": 0.06}}, r"attained 0\.06 exceeds error_bound"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    card: ModelCard, change: dict[str, Any], message: str
) -> None:
    """Unknown keys, impossible values and a cutoff outside its own plateau do not load."""
    with pytest.raises(ValidationError, match=message):
        ModelCard.model_validate(card.model_dump() | change)


def test_a_card_may_say_how_its_band_and_its_pfis_came_about(card: ModelCard) -> None:
    """A bound on errors, a temperature and a parent survive the file; a margin is not needed."""
    new = {"review_error_bound": BOUND, "temperature": 1.3, "calibrated_from": "googlenet/1.0.0"}
    whole = ModelCard.model_validate(card.model_dump() | new | {"review_margin_logits": 0})
    assert ModelCard.model_validate_json(whole.model_dump_json()) == whole
    assert whole.review_error_bound is not None
    assert whole.review_error_bound.coverage.n == 60


def test_an_older_card_says_nothing_of_it(version: ModelVersion) -> None:
    """A version published before there were such keys loads, and they are null."""
    card = version.card
    assert (card.review_error_bound, card.temperature, card.calibrated_from) == (None, None, None)


def test_a_card_never_changes(card: ModelCard) -> None:
    """The threshold belongs to the card; it cannot change at run time."""
    with pytest.raises(ValidationError, match="frozen"):
        card.threshold = 0.5


@pytest.mark.parametrize("percentiles", [(1, 1), (99, 1), (-1, 99), (0, 101)])
def test_percentiles_ascend(percentiles: tuple[float, float]) -> None:
    """A window needs two different ends within 0 to 100."""
    with pytest.raises(ValidationError, match="must ascend"):
        PreprocessSpec(window_percentiles=percentiles)


def test_the_default_window_is_the_papers() -> None:
    """Minimum to maximum, 256 pixels a side."""
    assert PreprocessSpec().window_percentiles == (0, 100)
    assert PreprocessSpec().size == 256
