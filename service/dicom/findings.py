"""What a result says, as coded concepts: the same list for the report and for the Observation.

The Standard has codes for the two views, but none for the rest; those are of a private scheme.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import Literal, NamedTuple

from model_store import ModelCard, Orientation
from service.dicom.instance import Result
from service.inference import Classification

PRIVATE = "99CXRVIEW"  # PS3.16 8.2: private Coding Scheme Designators begin with 99
# UIDs of this namespace are UUIDs of version 5, below 2.25: PS3.5 B.2
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cxrview.dicom")


class Code(NamedTuple):
    """A coded concept. Its meaning has at most 64 characters, as in DICOM."""

    value: str
    scheme: str
    meaning: str


class Quantity(NamedTuple):
    """A number with its UCUM unit, with at most six decimals."""

    value: float
    unit: Literal["%", "deg"]


class Finding(NamedTuple):
    """A concept and its value; bool is yes or no."""

    name: Code
    value: Code | bool | Quantity


# DICOM CID 4010 "DX View", as concept 111031 of TID 4020 uses it
IMAGE_VIEW = Code("111031", "DCM", "Image View")
VIEWS = {
    "frontal": Code("399033003", "SCT", "frontal"),
    "lateral": Code("399067008", "SCT", "lateral"),
}
YES, NO = Code("373066001", "SCT", "Yes"), Code("373067005", "SCT", "No")  # CID 230

PFI = Code("pfi", PRIVATE, "Probability of a frontal image")
CHEST = Code("chest", PRIVATE, "Chest radiograph")
P_CHEST = Code("p_chest", PRIVATE, "Probability of a chest radiograph")
REVIEW = Code("review", PRIVATE, "Review by a person is advised")
ROTATION = Code("rotation", PRIVATE, "Clockwise rotation that makes the image upright")
P_ROTATION = Code("p_rotation", PRIVATE, "Probability of this rotation")
INVERTED = Code("inverted", PRIVATE, "Grey values are inverted: bone is dark")
P_INVERTED = Code("p_inverted", PRIVATE, "Probability of inverted grey values")
MIRRORED = Code("mirrored", PRIVATE, "Left and right are exchanged")
P_MIRRORED = Code("p_mirrored", PRIVATE, "Probability of exchanged left and right")
VIEW_AGREES = Code("view_agrees", PRIVATE, "View Position agrees with the image")
BODY_PART_AGREES = Code("body_part_agrees", PRIVATE, "Body Part Examined agrees with the image")
WARNING = Code("warning", PRIVATE, "Warning about the image")
REFUSED = Code("refused", PRIVATE, "The image was not classified, because")


def findings(result: Result) -> list[Finding]:
    """What the result says; Image View is absent for `not_chest` and for a refusal."""
    answer = result.classification
    if answer is None:
        return [Finding(REFUSED, private(result.problem or "unknown"))]
    found = [Finding(IMAGE_VIEW, VIEWS[answer.view])] if answer.view in VIEWS else []
    found.append(Finding(PFI, percent(answer.pfi)))
    if answer.chest is not None:
        found.append(Finding(CHEST, answer.view != "not_chest"))
        found.append(Finding(P_CHEST, percent(answer.chest)))
    if answer.orientation is not None:
        found += _orientation(answer.orientation)
    found.append(Finding(REVIEW, answer.review))
    return [*found, *_header(answer), *(Finding(WARNING, private(w)) for w in answer.warnings)]


def private(code: str) -> Code:
    """A code of this project, such as `blank_image`, which is read as "blank image"."""
    return Code(code, PRIVATE, code.replace("_", " ")[:64])


def percent(probability: float) -> Quantity:
    """A probability, 0..1, in percent."""
    return Quantity(round(100 * probability, 6), "%")


@lru_cache(maxsize=1024)
def derived_uid(*sources: str) -> str:
    """A UID that only depends on `sources`, which hold no `|`."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '|'.join(sources)).int}"


def model_uid(card: ModelCard) -> str:
    """The UID of a model version as a device, by name, version and weights."""
    return derived_uid("model", card.name, card.version, card.model_sha256)


def report_uid(result: Result) -> str:
    """The UID of a report: by instance and model version, and by the reason of a refusal.

    An image may be refused in passing, and be classified when it is sent again: two reports.
    """
    return derived_uid(
        "report", result.source.sop_instance_uid, model_uid(result.card), result.problem or ""
    )


def _orientation(orientation: Orientation) -> list[Finding]:
    pairs = (
        (ROTATION, orientation.rotation_degrees, P_ROTATION, orientation.rotation_probability),
        (INVERTED, orientation.inverted, P_INVERTED, orientation.inverted_probability),
        (MIRRORED, orientation.mirrored, P_MIRRORED, orientation.mirrored_probability),
    )
    found = []
    for name, value, probability_name, probability in pairs:
        if value is not None and probability is not None:
            said = value if isinstance(value, bool) else Quantity(value, "deg")
            found += [Finding(name, said), Finding(probability_name, percent(probability))]
    return found


def _header(answer: Classification) -> list[Finding]:
    """Whether the header agrees; what it says is not quoted, as it may be anything."""
    if answer.header is None:
        return []
    pairs = (
        (VIEW_AGREES, answer.header.agrees),
        (BODY_PART_AGREES, answer.header.body_part_agrees),
    )
    return [Finding(name, agrees) for name, agrees in pairs if agrees is not None]
