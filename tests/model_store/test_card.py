"""What a card may say, and what follows from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from model_store import (
    HeadCutoff,
    Heads,
    Interval,
    ModelCard,
    ModelVersion,
    Plateau,
    Prediction,
    PreprocessSpec,
)

BOUND: dict[str, Any] = {
    "error_bound": 0.05,
    "confidence": 0.95,
    "attained": 0.0495,
    "coverage": {"count": 59, "n": 60, "value": 59 / 60, "ci95": (0.9, 1.0)},
    "measured_on": "60 images",
}


PLATEAU = Plateau(low=0.2, high=0.6, youden_j=1.0, measured_on="test", images=10)


def cutoff(threshold: float, low: float, high: float) -> HeadCutoff:
    band = Interval(low=low, high=high)
    return HeadCutoff(
        threshold=threshold, threshold_rule="middle", plateau=PLATEAU, review_band=band
    )


HEADS = Heads(
    chest=cutoff(0.3, 0.1, 0.5),
    rotation=True,
    inverted=cutoff(0.5, 0.4, 0.6),
    mirrored=cutoff(0.5, 0.2, 0.8),
)
UPRIGHT = (0.9, 0.05, 0.03, 0.02)


@pytest.fixture
def card(version: ModelVersion) -> ModelCard:
    changes = {"plateau": PLATEAU, "threshold": 0.4, "review_band": Interval(low=0.2, high=0.6)}
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
    assert card.decide(Prediction(pfi)) == (view, review, None)


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
        ({"card_version": 3}, "card_version"),
        ({"heads": {"rotation": True}}, "need card_version 2"),
        ({"probe_outputs": {"chest": [0.9]}}, "need card_version 2"),
        ({"card_version": 2, "probe_outputs": {"chest": [5.0]}}, "less than or equal to 1"),
        ({"card_version": 2, "probe_outputs": {"chest": [math.nan]}}, "less than or equal to 1"),
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


@pytest.fixture
def headed(card: ModelCard) -> ModelCard:
    return card.model_copy(update={"card_version": 2, "heads": HEADS})


@pytest.mark.parametrize(
    ("chest", "view", "review"),
    [
        (0.05, "not_chest", False),
        (0.1, "not_chest", True),
        (0.29, "not_chest", True),
        (0.3, "frontal", True),
        (0.5, "frontal", True),
        (0.51, "frontal", False),
    ],
)
def test_an_image_that_is_no_chest_radiograph_has_no_view(
    headed: ModelCard, chest: float, view: str, review: bool
) -> None:
    """Below the threshold of `chest`, whatever the PFI; its band marks on both sides."""
    found = headed.decide(Prediction(0.99, chest, UPRIGHT, 0.1, 0.1))
    assert (found.view, found.review) == (view, review)
    assert (found.orientation is None) == (view == "not_chest")


def test_the_band_of_the_view_does_not_mark_what_has_no_view(headed: ModelCard) -> None:
    """A hand whose PFI is uncertain is a hand; but doubts about the file stay."""
    hand = Prediction(0.4, 0.01, UPRIGHT, 0.1, 0.1)
    assert headed.decide(hand) == ("not_chest", False, None)
    assert headed.decide(hand, doubtful=True) == ("not_chest", True, None)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_most_probable_rotation_is_told(headed: ModelCard, degrees: int) -> None:
    """With its probability, beside polarity and mirroring."""
    shares = [0.1, 0.1, 0.1, 0.1]
    shares[degrees // 90] = 0.7
    found = headed.decide(Prediction(0.99, 0.9, tuple(shares), 0.7, 0.2)).orientation  # type: ignore[arg-type]
    assert found is not None
    assert (found.rotation_degrees, found.rotation_probability) == (degrees, 0.7)
    assert (found.inverted, found.inverted_probability) == (True, 0.7)
    assert (found.mirrored, found.mirrored_probability) == (False, 0.2)


def test_a_lateral_is_never_called_mirrored(headed: ModelCard) -> None:
    """Patients stand with either side to the detector."""
    found = headed.decide(Prediction(0.01, 0.9, UPRIGHT, 0.1, 0.9)).orientation
    assert found is not None
    assert (found.mirrored, found.mirrored_probability) == (None, None)
    assert found.rotation_degrees == 0


def test_a_card_with_heads_survives_the_file(headed: ModelCard) -> None:
    """Written and read again, it is equal."""
    assert ModelCard.model_validate_json(headed.model_dump_json()) == headed


def test_a_heads_threshold_lies_in_its_band() -> None:
    """As that of the view does."""
    with pytest.raises(ValidationError, match="outside its review_band"):
        cutoff(0.7, 0.1, 0.5)
