"""The answer of a Store transaction (STOW-RS): what became of each object of the request.

References:
    DICOM PS3.18 10.5 Store Transaction, Annex I Store Instances Response Module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

from pydicom.datadict import keyword_for_tag
from python_multipart.multipart import parse_options_header

from service.dicom.instance import InstanceError, SourceInstance
from service.imaging import ImageError, UnsupportedSopClassError, UnsupportedTransferSyntaxError
from service.uploads.upload import UploadError

JSON, XML = "application/dicom+json", "application/dicom+xml"
# What a client may accept, and what it then gets
ANSWERS = {
    b"application/dicom+json": JSON,
    b"application/json": JSON,
    b"application/*": JSON,
    b"*/*": JSON,
    b"application/dicom+xml": XML,
}
MAX_ACCEPT_CHARACTERS = 1000

# Failure Reason (0008,1197), PS3.18 Table I.2-2
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

RETRIEVE_URL = "00081190"
FAILURE_REASON = "00081197"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_SEQUENCE = "00081199"
OTHER_FAILURES_SEQUENCE = "0008119A"
REFERENCED_SOP_CLASS_UID = "00081150"
REFERENCED_SOP_INSTANCE_UID = "00081155"
NATIVE_MODEL = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

Attributes = dict[str, dict[str, Any]]  # by tag, as in DICOM JSON


class NotAcceptableError(Exception):
    """The client accepts neither DICOM JSON nor DICOM XML."""

    code: ClassVar[str] = "not_acceptable"


class StudyUidError(Exception):
    """The path names a study by something that is no UID."""

    code: ClassVar[str] = "invalid_study_uid"


class OtherStudyError(Exception):
    """The object belongs to another study than the path says."""

    code: ClassVar[str] = "other_study"


# Of errors that sending the object again does not cure; the nearest class counts
REASONS: dict[type[BaseException], int] = {
    InstanceError: CANNOT_UNDERSTAND,
    ImageError: CANNOT_UNDERSTAND,
    UploadError: CANNOT_UNDERSTAND,
    UnsupportedSopClassError: SOP_CLASS_NOT_SUPPORTED,
    UnsupportedTransferSyntaxError: TRANSFER_SYNTAX_NOT_SUPPORTED,
    OtherStudyError: MISMATCH,
    BaseException: PROCESSING_FAILURE,
}


def reason_of(error: Exception) -> int:
    """Failure Reason (0008,1197) for an error that sending the object again does not cure."""
    return next(REASONS[cls] for cls in type(error).__mro__ if cls in REASONS)


@dataclass(frozen=True)
class Outcome:
    """What became of one part of the request."""

    source: SourceInstance | None  # None: it is no object that can be referred to
    reason: int | None = None  # Failure Reason (0008,1197); None: stored

    @property
    def overloaded(self) -> bool:
        """Whether it should be sent again later."""
        return self.reason == OUT_OF_RESOURCES


def answer_type(accept: str | None) -> str:
    """The media type of the answer that a client accepts best.

    Raises:
        NotAcceptableError: It accepts none.

    References:
        RFC 9110 12.5.1; DICOM PS3.18 8.7.5.
    """
    if not accept or not accept.strip():
        return JSON
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        raise NotAcceptableError(
            f"an Accept header of more than {MAX_ACCEPT_CHARACTERS} characters"
        )
    weights: dict[str, float] = {}
    for each in accept.split(","):
        kind, options = parse_options_header(each.strip())
        if (answer := ANSWERS.get(kind)) is not None:
            weights[answer] = max(weights.get(answer, 0), _weight(options.get(b"q", b"1")))
    best = max((JSON, XML), key=lambda answer: weights.get(answer, 0))
    if not weights.get(best):
        raise NotAcceptableError(f"the answer is {JSON} or {XML}")
    return best


def _weight(text: bytes) -> float:
    try:
        return min(float(text), 1)
    except ValueError:
        return 0


def status_of(outcomes: Sequence[Outcome]) -> HTTPStatus:
    """The status of the answer. If nothing was stored, and some of it may be later, it is 503.

    References:
        DICOM PS3.18 Table 10.5.3-1.
    """
    failed = [outcome for outcome in outcomes if outcome.reason is not None]
    if not failed:
        return HTTPStatus.OK
    if len(failed) < len(outcomes):
        return HTTPStatus.ACCEPTED
    if any(outcome.overloaded for outcome in failed):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def response_of(outcomes: Iterable[Outcome]) -> Attributes:
    """The Store Instances Response Module, as a DICOM JSON object.

    Retrieve URL is empty, because nothing can be retrieved from here.
    """
    referenced: list[Attributes] = []
    failed: list[Attributes] = []
    other: list[Attributes] = []
    for outcome in outcomes:
        reason = {} if outcome.reason is None else {FAILURE_REASON: _value("US", outcome.reason)}
        if outcome.source is None:
            other.append(reason)
        elif outcome.reason is None:
            referenced.append(_reference(outcome.source) | {RETRIEVE_URL: {"vr": "UR"}})
        else:
            failed.append(_reference(outcome.source) | reason)
    sequences = {
        FAILED_SOP_SEQUENCE: failed,
        REFERENCED_SOP_SEQUENCE: referenced,
        OTHER_FAILURES_SEQUENCE: other,
    }
    filled = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    return {RETRIEVE_URL: {"vr": "UR"}} | filled


def _reference(source: SourceInstance) -> Attributes:
    return {
        REFERENCED_SOP_CLASS_UID: _value("UI", source.sop_class_uid),
        REFERENCED_SOP_INSTANCE_UID: _value("UI", source.sop_instance_uid),
    }


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def encode(response: Attributes, media_type: str) -> bytes:
    """The response as DICOM JSON (PS3.18 Annex F), or as a Native DICOM Model (PS3.19 A.1)."""
    if media_type == JSON:
        return json.dumps(response, separators=(",", ":")).encode()
    root = ET.Element("NativeDicomModel", {"xmlns": NATIVE_MODEL})
    _add_attributes(root, response)
    encoded: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return encoded


def _add_attributes(parent: ET.Element, attributes: Attributes) -> None:
    for tag, attribute in attributes.items():
        names = {"tag": tag, "vr": attribute["vr"], "keyword": keyword_for_tag(int(tag, 16))}
        element = ET.SubElement(parent, "DicomAttribute", names)
        of_sequence = attribute["vr"] == "SQ"
        for number, value in enumerate(attribute.get("Value", ()), 1):
            name = "Item" if of_sequence else "Value"
            child = ET.SubElement(element, name, {"number": str(number)})
            if of_sequence:
                _add_attributes(child, value)
            else:
                child.text = str(value)
