"""What a card may say, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model_store import Interval, ModelCard, ModelVersion, Plateau, PreprocessSpec


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
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    card: ModelCard, change: dict[str, Any], message: str
) -> None:
    """Unknown keys, impossible values and a cutoff outside its own plateau do not load."""
    with pytest.raises(ValidationError, match=message):
        ModelCard.model_validate(card.model_dump() | change)


def test_a_card_never_changes(card: ModelCard) -> None:
    """The threshold belongs to the card; nobody sets it at run time."""
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
