"""The answer that follows from a prediction, the header and the card."""

from __future__ import annotations

from typing import Any

import pytest
from heads import with_heads
from images import dicom, png, radiograph

from model_store import ModelCard, ModelVersion, Orientation, Prediction
from service.imaging import Radiograph, read_radiograph
from service.inference import Classification

UPRIGHT = (0.97, 0.01, 0.01, 0.01)
CHEST = Prediction(0.99, 0.98, UPRIGHT, 0.1, 0.9)
HAND = Prediction(0.99, 0.02, UPRIGHT, 0.1, 0.9)


@pytest.fixture(scope="module")
def headed() -> ModelCard:
    return with_heads().card


def read(**attributes: Any) -> Radiograph:
    """A DICOM object with these attributes."""
    return read_radiograph(dicom(radiograph(), **attributes), with_heads().card.preprocess)


def test_a_model_of_card_version_1_answers_null_where_it_has_no_head(version: ModelVersion) -> None:
    """Its view, threshold and review are as ever; what it cannot know is null, not False."""
    image = read(ViewPosition="PA", BodyPartExamined="CHEST")
    answer = Classification.of(image, Prediction(0.99), version.card)
    assert (answer.view, answer.pfi, answer.threshold) == ("frontal", 0.99, version.card.threshold)
    assert (answer.chest, answer.chest_threshold, answer.orientation) == (None, None, None)
    assert answer.header is not None
    assert answer.header.model_dump() == {
        "view_position": "PA",
        "agrees": True,
        "body_part_examined": "CHEST",
        "body_part_agrees": None,
    }


def test_a_model_with_heads_says_how_the_image_lies(headed: ModelCard) -> None:
    """The probabilities and what the card makes of them, in one answer."""
    answer = Classification.of(read(), CHEST, headed)
    assert (answer.view, answer.review) == ("frontal", False)
    assert (answer.chest, answer.chest_threshold) == (0.98, 0.5)
    assert answer.orientation == Orientation(
        rotation_degrees=0,
        rotation_probability=0.97,
        inverted=False,
        inverted_probability=0.1,
        mirrored=True,
        mirrored_probability=0.9,
    )


def test_an_image_that_is_no_chest_radiograph_keeps_its_pfi(headed: ModelCard) -> None:
    """It has no view to compare with View Position, and no orientation."""
    answer = Classification.of(read(ViewPosition="PA"), HAND, headed)
    assert (answer.view, answer.pfi, answer.chest) == ("not_chest", 0.99, 0.02)
    assert answer.orientation is None
    assert answer.header is not None
    assert (answer.header.view_position, answer.header.agrees) == ("PA", None)


@pytest.mark.parametrize(
    ("named", "prediction", "agrees"),
    [
        ("CHEST", CHEST, True),
        ("CHEST", HAND, False),
        ("HAND", CHEST, False),
        ("HAND", HAND, True),
        ("WIDGET", CHEST, None),
        ("", HAND, None),
        (None, CHEST, None),
    ],
)
def test_body_part_examined_is_compared_with_the_answer(
    headed: ModelCard, named: str | None, prediction: Prediction, agrees: bool | None
) -> None:
    """It agrees if it claims a chest and the answer is a view, or neither; unknown parts: null."""
    image = read(**({} if named is None else {"BodyPartExamined": named}))
    answer = Classification.of(image, prediction, headed)
    assert answer.header is not None
    assert answer.header.body_part_examined == (named or None)
    assert answer.header.body_part_agrees is agrees


def test_a_png_has_no_header(headed: ModelCard) -> None:
    """Nothing is compared."""
    image = read_radiograph(png(radiograph()), headed.preprocess)
    assert Classification.of(image, CHEST, headed).header is None


@pytest.mark.parametrize("prediction", [CHEST, HAND, Prediction(0.4, 0.6, UPRIGHT, 0.5, 0.5)])
def test_an_answer_survives_its_json(headed: ModelCard, prediction: Prediction) -> None:
    """What a client reads is what the service answered."""
    answer = Classification.of(read(ViewPosition="PA"), prediction, headed)
    assert Classification.model_validate_json(answer.model_dump_json()) == answer


def test_a_client_reads_answers_of_older_and_newer_services(headed: ModelCard) -> None:
    """What an older one lacks is null; what only a newer one knows is left out, at any depth."""
    answer = Classification.of(read(ViewPosition="PA"), CHEST, headed)
    newer = answer.model_dump()
    for level in (newer, newer["header"], newer["orientation"], newer["model"]):
        level["of_tomorrow"] = 1
    assert Classification.model_validate(newer) == answer
    older = answer.model_dump(exclude={"chest", "chest_threshold", "orientation"})
    older["header"] = {"view_position": "PA", "agrees": True}
    found = Classification.model_validate(older)
    assert (found.chest, found.chest_threshold, found.orientation) == (None, None, None)
    assert found.header is not None
    assert (found.header.body_part_examined, found.header.body_part_agrees) == (None, None)
