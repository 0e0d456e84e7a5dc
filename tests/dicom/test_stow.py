"""The answer of a Store transaction: its status, reasons, and both of its forms."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from service.dicom.instance import InstanceError, SourceInstance
from service.dicom.stow import (
    JSON,
    XML,
    NotAcceptableError,
    OtherStudyError,
    Outcome,
    answer_type,
    encode,
    reason_of,
    response_of,
    status_of,
)
from service.imaging import (
    BlankImageError,
    CorruptImageError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)
from service.uploads.upload import EntryTooLargeError, MediaTypeError

STORED = Outcome(SourceInstance("1.2.1", "1.2.3", "1.2", "1.2.0", None, Dataset()))
FAILED = Outcome(SourceInstance("1.2.2", "1.2.4", "1.2", "1.2.0", None, Dataset()), 0x0122)
OVERLOADED = Outcome(SourceInstance("1.2.2", "1.2.5", "1.2", "1.2.0", None, Dataset()), 0xA700)
UNKNOWN = Outcome(None, 0xC000)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([STORED], 200),
        ([STORED, STORED], 200),
        ([STORED, FAILED], 202),
        ([OVERLOADED, STORED], 202),
        ([FAILED], 409),
        ([UNKNOWN, FAILED], 409),
        ([OVERLOADED], 503),
        ([UNKNOWN, OVERLOADED], 503),
    ],
)
def test_the_status_says_whether_all_some_or_none_are_stored(
    outcomes: list[Outcome], status: int
) -> None:
    """PS3.18 Table 10.5.3-1; 503 where sending it again may help."""
    assert status_of(outcomes) == status


def test_pydicom_reads_the_answer() -> None:
    """PS3.18 Table I.1-1: each object in one sequence, and what is no object in a third one."""
    answer = encode(response_of([STORED, FAILED, UNKNOWN, OVERLOADED]), JSON)
    found = Dataset.from_json(answer.decode())
    assert [item.ReferencedSOPInstanceUID for item in found.ReferencedSOPSequence] == ["1.2.3"]
    assert [item.ReferencedSOPClassUID for item in found.ReferencedSOPSequence] == ["1.2.1"]
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason)
        for item in found.FailedSOPSequence
    ] == [("1.2.2", "1.2.4", 0x0122), ("1.2.2", "1.2.5", 0xA700)]
    assert [item.FailureReason for item in found.OtherFailuresSequence] == [0xC000]
    assert not found.RetrieveURL  # Type 2: present, and empty
    assert not found.ReferencedSOPSequence[0].RetrieveURL


def test_a_sequence_without_items_is_absent() -> None:
    """Type 1C: a client may take the presence of Failed SOP Sequence for a failure."""
    assert set(response_of([STORED])) == {"00081190", "00081199"}
    assert set(response_of([FAILED])) == {"00081190", "00081198"}
    assert set(response_of([UNKNOWN])) == {"00081190", "0008119A"}


def from_native_model(element: ET.Element) -> dict[str, object]:
    """The DICOM JSON object of a Native DICOM Model (PS3.19 A.1)."""
    attributes: dict[str, object] = {}
    for each in element:
        assert each.tag.endswith("}DicomAttribute")
        assert each.get("keyword") == keyword_for_tag(each.attrib["tag"])
        values: list[object] = []
        for number, child in enumerate(each, 1):
            assert child.get("number") == str(number)
            text = int(child.text or "") if each.get("vr") == "US" else child.text
            values.append(from_native_model(child) if child.tag.endswith("}Item") else text)
        named = {"vr": each.attrib["vr"]}
        attributes[each.attrib["tag"]] = named | ({"Value": values} if values else {})
    return attributes


def test_xml_says_the_same() -> None:
    """As a Native DICOM Model, in its namespace."""
    response = response_of([STORED, FAILED, UNKNOWN])
    root = ET.fromstring(encode(response, XML))
    assert root.tag == "{http://dicom.nema.org/PS3.19/models/NativeDICOM}NativeDicomModel"
    assert from_native_model(root) == response == json.loads(encode(response, JSON))


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", JSON),
        (" ", JSON),
        ("*/*", JSON),
        ("application/dicom+json", JSON),
        ("Application/DICOM+JSON; charset=utf-8", JSON),
        ("application/json", JSON),
        ("text/html, application/*;q=0.1", JSON),
        ("application/dicom+xml", XML),
        ("application/dicom+xml, */*;q=0.5", XML),
        ("application/dicom+xml;q=0.5, application/dicom+json;q=0.6", JSON),
        ("application/dicom+xml, application/dicom+json", JSON),
    ],
)
def test_the_client_chooses_the_form(accept: str, answer: str) -> None:
    """By media type and weight; JSON wins between equal ones."""
    assert answer_type(accept) == answer


@pytest.mark.parametrize(
    "accept", ["text/html", "application/dicom", "*/*;q=0", "*/*;q=nan", "*/*;q=x", "," * 5000]
)
def test_other_forms_are_not_acceptable(accept: str) -> None:
    """There is no third one."""
    with pytest.raises(NotAcceptableError):
        answer_type(accept)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InstanceError(), 0xC000),
        (CorruptImageError(), 0xC000),
        (BlankImageError(), 0xC000),
        (UnsupportedSopClassError(), 0x0122),
        (UnsupportedTransferSyntaxError(), 0xC122),
        (OtherStudyError(), 0xA900),
        (MediaTypeError(), 0xC000),
        (EntryTooLargeError(), 0xC000),
        (ZeroDivisionError(), 0x0110),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else hex(value),
)
def test_every_error_has_a_failure_reason(error: Exception, reason: int) -> None:
    """PS3.18 Table I.2-2."""
    assert reason_of(error) == reason
