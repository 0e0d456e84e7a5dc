"""What a result needs of the object that it is about, and the result itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import ClassVar
from unicodedata import category

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from model_store import ModelCard
from service.imaging import (
    Elements,
    UnrecognisedFormatError,
    decoded_text,
    read_header,
    valid_uid,
)
from service.inference import Buffer, Classification

# PS3.3 C.7.1.1 Patient, C.7.2.1 General Study, C.7.2.2 Patient Study: what a report repeats
PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDescription",
    "PatientAge",
)
# Of the image; TimezoneOffsetFromUTC says what the times above mean
IMAGE = (
    "TimezoneOffsetFromUTC",
    "Modality",
    "ViewPosition",
    "BodyPartExamined",
    "InstanceNumber",
    "Rows",
    "Columns",
)
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
KEPT = {
    tag_for_keyword(keyword): keyword
    for keyword in ("SpecificCharacterSet", *UIDS, *PATIENT_AND_STUDY, *IMAGE)
}
# The VRs of KEPT that have a character set, and their most characters (PS3.5 6.2); of PN, those of
# each component group
TEXTS = {"LO": 64, "PN": 64, "SH": 16}
NAME_GROUPS, NAME_COMPONENTS = 3, 5  # of PN, at most (PS3.5 6.2.1.1)
# An archive may file by these two: a report with others, or none, lies in another patient and study
IDENTIFIERS = frozenset({"PatientID", "IssuerOfPatientID"})
# Character sets without code extensions, in which a text can be written again as it was
PLAIN_CHARACTER_SETS = {
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "iso8859-11",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
UTF_8 = "ISO_IR 192"
DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)", re.ASCII)  # with dots before DICOM 3
TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?", re.ASCII)
AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
CODE = re.compile(r"[A-Z0-9_ ]{1,16}", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
# -1200 to +1400, without -0000 (PS3.3 C.12.1.1.8)
OFFSET = re.compile(r"(?!-0000)[+-](0\d|1[01])[0-5]\d|-1200|\+1[23][0-5]\d|\+1400", re.ASCII)


class InstanceError(Exception):
    """No DICOM object, or one of its UIDs is missing or invalid: no result can refer to it."""

    code: ClassVar[str] = "not_an_instance"


@dataclass(frozen=True)
class SourceInstance:
    """What a result needs of the object it is about. It holds PHI, so it must not be logged.

    `attributes` are those of PATIENT_AND_STUDY and IMAGE that the object has and that are valid,
    and IDENTIFIERS: no pixels, no sequences, no private elements, at most 1 KB a value. Its
    Specific Character Set is one in which they can all be written: absent where they are ASCII,
    that of the object if it has no code extensions, or else UTF-8.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str | None
    attributes: Dataset = field(repr=False)


@dataclass(frozen=True)
class Result:
    """An answer about one instance, or the reason why there is none."""

    source: SourceInstance
    card: ModelCard = field(repr=False)  # of the version that answered or refused
    at: datetime  # aware, UTC: when the instance was accepted
    classification: Classification | None = field(repr=False)  # None: refused; it quotes the header
    problem: str | None = None  # the code of a refusal


def read_instance(data: Buffer) -> SourceInstance:
    """Read the header of a DICOM object; its pixels are not touched.

    Time and memory are bounded, whatever the header holds. Invalid values are left out, and none is
    cut or changed, because it could become another patient's. IDENTIFIERS are kept if they are only
    too long, up to 1 KB, or have several values.

    Args:
        data: A Part 10 file, or a data set without File Meta Information; it must not change
            during the call.

    Raises:
        InstanceError: See there.
        CorruptImageError: The object is cut off or damaged within its header.
        ImageTooLargeError: A deflated object inflates to more than any radiograph.
    """
    try:
        elements = read_header(data, KEPT)
    except UnrecognisedFormatError:
        raise InstanceError("this is no DICOM object") from None
    return SourceInstance(
        sop_class_uid=_uid(elements, "SOPClassUID", "MediaStorageSOPClassUID"),
        sop_instance_uid=_uid(elements, "SOPInstanceUID"),
        study_instance_uid=_uid(elements, "StudyInstanceUID"),
        series_instance_uid=_uid(elements, "SeriesInstanceUID"),
        transfer_syntax_uid=valid_uid(elements.text("TransferSyntaxUID")),
        attributes=_attributes(elements),
    )


def _uid(elements: Elements, keyword: str, otherwise: str = "") -> str:
    uid = valid_uid(elements.text(keyword) or elements.text(otherwise))
    if uid is None:
        raise InstanceError(f"{keyword} is missing or invalid")
    return uid


def _attributes(elements: Elements) -> Dataset:
    declared = elements.text("SpecificCharacterSet")
    attributes, texts = Dataset(), []
    for keyword in (*PATIENT_AND_STUDY, *IMAGE):
        vr = dictionary_VR(keyword)
        value = _value(elements, keyword, vr, declared)
        if value is not None:
            attributes.add_new(keyword, vr, value)
            texts.append(str(value))
    character_set = _character_set(declared, "".join(texts))
    if character_set is not None:
        attributes.SpecificCharacterSet = character_set
    return attributes


def _value(elements: Elements, keyword: str, vr: str, declared: str | None) -> str | int | None:
    """The valid value of an attribute; None if it is absent, invalid, or has another VR."""
    if elements.vrs.get(keyword) not in {vr.encode(), b"", b"UN"}:
        return None
    raw = elements.values[keyword]
    if vr == "US":
        number = int.from_bytes(raw, "little" if elements.little else "big")
        return number if len(raw) == 2 else None
    if keyword in CHECKS or vr not in TEXTS:
        check = CHECKS.get(keyword) or CHECKS[vr]
        return check(elements.text(keyword) or "")
    # Not valid in the declared set: Latin-1 shows Western text, and loses no byte of another
    text = (decoded_text(raw, declared) or raw.decode("latin-1")).strip(" \0")
    if any(category(each) == "Cc" for each in text):
        return None
    return (text or None) if keyword in IDENTIFIERS or _fits(text, vr) else None


def _fits(text: str, vr: str) -> bool:
    """Whether this is one value of its VR."""
    groups = text.split("=") if vr == "PN" else [text]
    return (
        "\\" not in text
        and len(groups) <= NAME_GROUPS
        and all(len(each) <= TEXTS[vr] for each in groups)
        and (vr != "PN" or all(each.count("^") < NAME_COMPONENTS for each in groups))
    )


def _date(text: str) -> str | None:
    """YYYYMMDD."""
    found = DATE.fullmatch(text)
    try:
        if found and date(*map(int, found.groups())):
            return "".join(found.groups())
    except ValueError:  # no day of a calendar
        pass
    return None


def _time(text: str) -> str | None:
    """HHMMSS.FFFFFF, without the parts that are absent."""
    found = TIME.fullmatch(text)
    return "".join(part or "" for part in found.groups()) if found else None


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda text: text if pattern.fullmatch(text) else None


# By VR, or by keyword where the Standard allows less
CHECKS: dict[str, Callable[[str], str | None]] = {
    "AS": _matching(AGE),
    "CS": _matching(CODE),
    "DA": _date,
    "IS": _matching(INTEGER),
    "TM": _time,
    "PatientSex": _matching(re.compile("[MFO]")),
    "TimezoneOffsetFromUTC": _matching(OFFSET),
}


def _character_set(declared: str | None, text: str) -> str | None:
    """The Specific Character Set in which all of this can be written; None if it is ASCII."""
    if text.isascii():
        return None
    codec = PLAIN_CHARACTER_SETS.get(declared or "")
    try:
        return declared if codec and text.encode(codec).decode(codec) == text else UTF_8
    except UnicodeError:
        return UTF_8
