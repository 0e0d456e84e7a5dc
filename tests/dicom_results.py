"""Results of every kind about small radiographs, as the service makes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from heads import with_heads
from images import dicom, radiograph

from model_store import ModelCard, Prediction, Store
from service.dicom.instance import Result, read_instance
from service.imaging import read_radiograph
from service.inference import Classification

AT = datetime(2026, 3, 4, 23, 6, 7, 89000, tzinfo=UTC)
STUDY = "1.2.826.0.1.3680043.8.498.20"
ORDER = {  # what a modality writes from a worklist
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": f"{STUDY}.1",
    "StudyDate": "20240229",
    "StudyTime": "101112.5",
    "StudyID": "77",
    "AccessionNumber": "A2024",
    "ReferringPhysicianName": "Smith^John",
    "PatientSex": "F",
    "BodyPartExamined": "CHEST",
}


def instance(**attributes: Any) -> bytes:
    """A CR object with ORDER."""
    return dicom(radiograph(160, 140), **(ORDER | attributes))


def answered(card: ModelCard, prediction: Prediction, **attributes: Any) -> Result:
    """A result whose network has said this."""
    data = instance(**attributes)
    answer = Classification.of(read_radiograph(data, card.preprocess), prediction, card)
    return Result(read_instance(data), card, AT, answer)


def refused(card: ModelCard, problem: str, **attributes: Any) -> Result:
    """A result that says why there is none."""
    return Result(read_instance(instance(**attributes)), card, AT, None, problem)


class Cards(NamedTuple):
    """Cards of a model with the view's head only, and of one with all."""

    plain: ModelCard
    headed: ModelCard


def cards() -> Cards:
    """The published one, and the one that tests make."""
    return Cards(Store().load("swift/1.1.0").card, with_heads().card)


def _said(pfi: float, chest: float, turn: int, inverted: float, mirrored: float) -> Prediction:
    rotation = [0.004, 0.004, 0.004, 0.004]
    rotation[turn] = 0.988
    return Prediction(pfi, chest, tuple(rotation), inverted, mirrored)  # type: ignore[arg-type]


OLD_NAMES = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
JAPANESE = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
}
ANONYMOUS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
)
KINDS: dict[str, Callable[[Cards], Result]] = {
    "frontal": lambda cards: answered(cards.plain, Prediction(0.9971234567)),
    "lateral": lambda cards: answered(cards.plain, Prediction(1e-9), ViewPosition="LL"),
    "disagreement": lambda cards: answered(cards.plain, Prediction(0.0123), ViewPosition="PA"),
    "review": lambda cards: answered(cards.plain, Prediction(cards.plain.threshold)),
    "warning": lambda cards: answered(cards.plain, Prediction(1.0), RescaleSlope="0"),
    "all heads": lambda cards: answered(cards.headed, _said(0.99, 1.0, 0, 0.0, 0.0)),
    "wrongly hung": lambda cards: answered(cards.headed, _said(0.99, 0.99, 3, 0.98, 0.97)),
    "lateral with heads": lambda cards: answered(cards.headed, _said(0.01, 0.99, 1, 0.1, 0.9)),
    "not_chest": lambda cards: answered(cards.headed, _said(0.9, 0.01, 0, 0.1, 0.1)),
    "Latin-1": lambda cards: answered(cards.plain, Prediction(0.9), **OLD_NAMES),
    "Japanese": lambda cards: answered(cards.headed, _said(0.9, 0.9, 0, 0.1, 0.1), **JAPANESE),
    "time zone": lambda cards: answered(
        cards.plain, Prediction(0.9), TimezoneOffsetFromUTC="+0530", InstanceNumber="-3"
    ),
    "nothing known": lambda cards: answered(
        cards.plain,
        Prediction(0.9),
        **dict.fromkeys(
            (
                "PatientName",
                "PatientID",
                "PatientBirthDate",
                "PatientSex",
                "StudyDate",
                "StudyTime",
            ),
            "",
        ),
    ),
    "refused": lambda cards: refused(cards.plain, "unsupported_transfer_syntax"),
    "refused, no image": lambda cards: refused(
        cards.plain, "unsupported_sop_class", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"
    ),
    "refused, private": lambda cards: refused(
        cards.headed, "unsupported_sop_class", SOPClassUID="1.3.12.2.1107.5.9.1"
    ),
}
