"""A result as a DICOM Structured Report: Comprehensive 3D SR, as IHE AI Results (AIR) has it.

highdicom builds the report of a model version once (0.1 s), about an image that does not
exist. A result then replaces what is its own in the encoded report (1 ms): sequences and items
have undefined length, so that nothing else changes.

References:
    PS3.3 A.35.13 Comprehensive 3D SR; PS3.16 TID 1500 Measurement Report, TID 1501, TID 4019.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Self

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset, uid
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sr.codedict import codes

from model_store import ModelCard
from service.dicom.findings import (
    NO,
    PRIVATE,
    YES,
    Code,
    Finding,
    Quantity,
    derived_uid,
    findings,
    model_uid,
    report_uid,
)
from service.dicom.instance import PATIENT_AND_STUDY, Result, SourceInstance

PRODUCT = "cxrview"
SERIES_NUMBER = 9900  # high, so that it does not meet those of a modality
IMPLEMENTATION = derived_uid("implementation")
EVIDENCE, CONTENT = 0x0040A375, 0x0040A730  # of the same procedure; Content Sequence
# The image that does not exist: its UIDs, and a number, are replaced by those of a result
CLASS = uid.ComputedRadiographyImageStorage
STUDY, SERIES, INSTANCE = "2.25.101", "2.25.102", "2.25.103"
NUMBER = 123.456789
DIGITS = 10  # of a Numeric Value, padded with spaces: 100.000000


def structured_report(result: Result) -> bytes:
    """The report as a Part 10 file, Explicit VR Little Endian.

    It depends on the result and the local time zone only: a second report is the same, byte for
    byte. Its study and patient are those of the instance, in its character set or in UTF-8.
    """
    form = _form(_Model.of(result.card))
    source = result.source
    items = b"".join(_item(finding) for finding in findings(result))
    if "Image Storage" in uid.UID(source.sop_class_uid).name:  # else no IMAGE item may refer to it
        items += _with_source(form.image, source)
    elements = form.elements | _encoded_elements(_attributes(result), source)
    elements[CONTENT] = form.before + items + form.after
    elements[EVIDENCE] = _with_source(form.elements[EVIDENCE], source)
    return _file_meta(result) + b"".join(elements[tag] for tag in sorted(elements))


class _Model(NamedTuple):
    """What a report says of its model version."""

    name: str
    version: str
    sha256: str
    uid: str
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        parameters = [f"sha256={card.model_sha256}", f"threshold={card.threshold}"]
        if card.heads.chest is not None:
            parameters.append(f"chest_threshold={card.heads.chest.threshold}")
        return cls(card.name, card.version, card.model_sha256, model_uid(card), tuple(parameters))

    @property
    def title(self) -> str:
        return f"{PRODUCT} {self.name} {self.version}"[:64]


class _Form(NamedTuple):
    """The encoded report of a model version about an image that does not exist."""

    elements: dict[int, bytes]  # by tag
    before: bytes  # Content Sequence up to where findings are put
    image: bytes  # the content item that refers to the image
    after: bytes


@lru_cache(maxsize=16)
def _form(model: _Model) -> _Form:
    report = _report(model)
    elements = {int(element.tag): _encoded(element) for element in report if element.tag >> 16 > 2}
    image = _encoded_item(sr.SourceImageForMeasurementGroup(CLASS, INSTANCE))
    before, after = elements[CONTENT].split(image)
    return _Form(elements, before, image, after)


def _report(model: _Model) -> sr.Comprehensive3DSR:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CLASS, INSTANCE
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, SERIES
    for keyword in PATIENT_AND_STUDY:
        setattr(image, keyword, "")
    return sr.Comprehensive3DSR(
        evidence=[image],
        content=_content(model),
        series_instance_uid=SERIES,
        series_number=SERIES_NUMBER,
        sop_instance_uid=INSTANCE,
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=model.name,
        device_serial_number=model.sha256,
        software_versions=model.version,
        series_description=model.title,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                PRIVATE, name=f"Concepts of {PRODUCT}", responsible_organization=PRODUCT
            )
        ],
    )


def _content(model: _Model) -> sr.MeasurementReport:
    """TID 1500, whose one Measurement Group (TID 1501) has no findings yet.

    The group is an image's, not that of a lesion that could be followed: it has no Tracking
    Identifier. The constructor of highdicom's class wants one, `from_sequence` does not.
    """
    group = sr.ContainerContentItem(
        name=codes.DCM.MeasurementGroup,
        template_id="1501",
        is_content_continuous=False,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    group.ContentSequence = sr.ContentSequence(
        [
            *sr.AlgorithmIdentification(
                model.name, model.version, model.parameters, manufacturer=PRODUCT
            ),
            sr.SourceImageForMeasurementGroup(CLASS, INSTANCE),
        ]
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=model.uid,
        name=model.title,
        manufacturer_name=PRODUCT,
        model_name=model.name,
        serial_number=model.sha256,
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=codes.cid100.XRUnspecifiedBodyRegion,  # neither known, nor to be guessed
        imaging_measurements=[sr.MeasurementsAndQualitativeEvaluations.from_sequence([group])],
    )
    # Readers show names of items in separate ones only; highdicom has no parameter for these two
    measurements = report[0].ContentSequence[-1]
    report[0].ContinuityOfContent = measurements.ContinuityOfContent = "SEPARATE"
    return report


def _item(finding: Finding) -> bytes:
    name, value = finding
    if not isinstance(value, Quantity):
        said = value if isinstance(value, Code) else (NO, YES)[value]
        return _code_item(name, said)
    digits = f"{value.value:.6f}".ljust(DIGITS).encode()
    item = _number_item(name, value.unit).replace(str(NUMBER).encode(), digits)
    return item.replace(struct.pack("<d", NUMBER), struct.pack("<d", value.value))


@lru_cache(maxsize=1024)
def _code_item(name: Code, value: Code) -> bytes:
    (item,) = sr.QualitativeEvaluation(_concept(name), _concept(value))
    return _encoded_item(item)


@lru_cache(maxsize=64)
def _number_item(name: Code, unit: str) -> bytes:
    units = {"%": codes.UCUM.Percent, "deg": codes.UCUM.Degree}
    (item,) = sr.Measurement(_concept(name), NUMBER, units[unit])
    return _encoded_item(item)


def _concept(code: Code) -> sr.CodedConcept:
    return sr.CodedConcept(code.value, code.scheme, code.meaning)


def _attributes(result: Result) -> Iterator[tuple[str, str | int]]:
    """The top-level attributes of a result's own, by keyword."""
    source = result.source
    known = source.attributes
    yield "SOPInstanceUID", report_uid(result)
    yield "SeriesInstanceUID", series_uid(result)
    yield "StudyInstanceUID", source.study_instance_uid
    yield "InstanceNumber", max(1, int(known.get("InstanceNumber") or 1))
    yield "CompletionFlag", "PARTIAL" if result.classification is None else "COMPLETE"
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC", *PATIENT_AND_STUDY):
        if keyword in known:
            yield keyword, known[keyword].value
    # An offset is that of all times; without one they are local, those of the image as well
    offset = known.get("TimezoneOffsetFromUTC")
    at = result.at.astimezone(datetime.strptime(offset, "%z").tzinfo if offset else None)
    yield "ObservationDateTime", at.strftime("%Y%m%d%H%M%S%z")
    for what in ("Content", "InstanceCreation"):
        yield f"{what}Date", at.strftime("%Y%m%d")
        yield f"{what}Time", at.strftime("%H%M%S.%f")


def series_uid(result: Result) -> str:
    """The series of all reports of a model version in a study."""
    return derived_uid("series", result.source.study_instance_uid, model_uid(result.card))


def _with_source(data: bytes, source: SourceInstance) -> bytes:
    """Replace what refers to the image that does not exist."""
    references = (
        ("ReferencedSOPClassUID", CLASS, source.sop_class_uid),
        ("ReferencedSOPInstanceUID", INSTANCE, source.sop_instance_uid),
        ("StudyInstanceUID", STUDY, source.study_instance_uid),
        ("SeriesInstanceUID", SERIES, source.series_instance_uid),
    )
    for keyword, nothing, something in references:
        data = data.replace(_uid_element(keyword, nothing), _uid_element(keyword, something))
    return data


def _uid_element(keyword: str, value: str) -> bytes:
    tag = tag_for_keyword(keyword) or 0
    padded = value.encode() + b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(padded)) + padded


def _encoded_elements(
    attributes: Iterable[tuple[str, str | int]], source: SourceInstance
) -> dict[int, bytes]:
    encodings = convert_encodings(source.attributes.get("SpecificCharacterSet"))
    elements = (
        DataElement(keyword, dictionary_VR(keyword), value) for keyword, value in attributes
    )
    return {int(element.tag): _encoded(element, encodings) for element in elements}


def _encoded(element: DataElement, encodings: list[str] | None = None) -> bytes:
    if element.VR == "SQ":
        element.is_undefined_length = True
        for item in element.value:
            _endless(item)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, encodings)
    return bytes(buffer.getvalue())


def _encoded_item(item: Dataset) -> bytes:
    """As it stands within a sequence, of undefined length."""
    data = _encoded(DataElement(CONTENT, "SQ", [item]))
    return data[12:-8]  # without the head and the delimiter of the sequence


def _endless(item: Dataset) -> None:
    """Let an item and all that is in it have undefined length."""
    item.is_undefined_length_sequence_item = True
    for element in item:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for each in element.value:
                _endless(each)


def _file_meta(result: Result) -> bytes:
    """PS3.10 7.1, with the preamble."""
    version = struct.pack("<HH2s2xL", 2, 1, b"OB", 2) + b"\0\1"
    uids = (
        ("MediaStorageSOPClassUID", uid.Comprehensive3DSRStorage),
        ("MediaStorageSOPInstanceUID", report_uid(result)),
        ("TransferSyntaxUID", uid.ExplicitVRLittleEndian),
        ("ImplementationClassUID", IMPLEMENTATION),
    )
    group = version + b"".join(_uid_element(*each) for each in uids)
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(group)) + group
