"""The intake: one result for each instance, and success only when it is committed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from images import dicom
from receiving import UID, file_of, picture

from model_store import ModelCard, Prediction, Store
from service.dicom.destinations import read_destinations
from service.dicom.entries import OutboxAwayError
from service.dicom.instance import InstanceError
from service.dicom.intake import Intake
from service.dicom.outbox import Outbox
from service.imaging import CorruptImageError, read_radiograph
from service.inference import Classification

DESTINATIONS = """
[destinations.all]
kind = "folder"
path = "."
results = ["all"]

[destinations.refusals]
kind = "folder"
path = "."
results = ["refused"]
"""


class Network:
    """Reads each file, and says what it is told."""

    def __init__(self, card: ModelCard) -> None:
        self.card, self.images, self.pfi = card, 0, 0.9

    async def classify(self, data, _lane) -> Classification:
        self.images += 1
        radiograph = await asyncio.to_thread(read_radiograph, data, self.card.preprocess)
        prediction = Prediction(
            pfi=self.pfi, chest=None, rotation=None, inverted=None, mirrored=None
        )
        return Classification.of(radiograph, prediction, self.card)


@pytest.fixture
def network() -> Network:
    return Network(Store().load("swift/1.1.0").card)


@pytest.fixture
def outbox(tmp_path):
    opened = Outbox(f"sqlite:///{tmp_path}/outbox.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def intake(tmp_path: Path, network, outbox) -> Intake:
    (tmp_path / "destinations.toml").write_text(DESTINATIONS)
    destinations = read_destinations(tmp_path / "destinations.toml")
    return Intake(network.classify, network.card, outbox, destinations)


def accept(intake: Intake, *files: bytes, **options):
    async def all_of_them():
        return await asyncio.gather(
            *(intake.accept(each, "interactive", **options) for each in files)
        )

    return asyncio.run(all_of_them())


def waiting(outbox: Outbox, destination: str) -> list[str]:
    return [each.sop_instance_uid for each in outbox.lease(destination, 100, 60)]


def test_an_answer_is_committed_for_those_who_want_it(intake, outbox):
    """And is found again by its instance."""
    (accepted,) = accept(intake, file_of(1))
    assert not accepted.repeated
    assert accepted.source.sop_instance_uid == f"{UID}.1"
    stored = outbox.answer(f"{UID}.1", "swift/1.1.0")
    assert Classification.model_validate_json(stored) == accepted.classification
    assert waiting(outbox, "all") == [f"{UID}.1"]
    assert waiting(outbox, "refusals") == []


def test_a_repeated_instance_is_not_classified_again(intake, outbox, network):
    """Its first answer is the answer, whatever the network would say now."""
    (first,) = accept(intake, file_of(2))
    network.pfi = 0.1
    (second,) = accept(intake, file_of(2))
    assert second.repeated
    assert second.classification == first.classification
    assert network.images == 1
    assert waiting(outbox, "all") == [f"{UID}.2"]


def test_an_instance_that_comes_twice_at_once_has_one_result(intake, outbox):
    """By two associations, say."""
    answers = accept(intake, *[file_of(3)] * 4)
    assert sum(not each.repeated for each in answers) == 1
    assert len({each.classification.model_dump_json() for each in answers}) == 1
    assert waiting(outbox, "all") == [f"{UID}.3"]


def test_a_refusal_is_reported_and_raised(intake, outbox):
    """Once for each reason, however often it comes; and the repaired object is accepted."""
    cut = file_of(4)[:-20000]
    for _ in range(2):
        with pytest.raises(CorruptImageError):
            accept(intake, cut)
    assert waiting(outbox, "refusals") == [f"{UID}.4"]
    (accepted,) = accept(intake, file_of(4))
    assert not accepted.repeated
    assert waiting(outbox, "all") == [f"{UID}.4"]


def test_what_nothing_can_refer_to_is_not_classified(intake, network):
    """It has no UIDs."""
    with pytest.raises(InstanceError):
        accept(intake, dicom(picture(12)))
    assert network.images == 0


def test_a_check_comes_before_all_else(intake, network, outbox):
    """Of what the sender said about the object."""
    seen = []

    def check(source):
        seen.append(source.sop_instance_uid)
        raise ValueError("another object")

    with pytest.raises(ValueError, match="another object"):
        accept(intake, file_of(6), check=check)
    assert seen == [f"{UID}.6"]
    assert network.images == 0
    assert outbox.answer(f"{UID}.6", "swift/1.1.0") is None


def test_without_the_outbox_there_is_no_success(intake, outbox, tmp_path):
    """The sender must send again."""
    accept(intake, file_of(7))
    outbox.close()
    for path in tmp_path.glob("outbox.sqlite*"):
        path.unlink()
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(OutboxAwayError):
        accept(intake, file_of(8))
