"""The origin of an image, from its header. For archives only, never for logs or answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydicom.charset import convert_encodings, decode_bytes

from model_store import View
from service.imaging.elements import Elements
from service.imaging.header import DESCRIPTIONS, ClaimedBy, ViewHeader
from service.imaging.view_terms import view_named

MAX_CHARACTERS = 64  # the Standard's maximum for these attributes
# Value representations of texts, of implicit VR, and of an unknown one
TEXT_VRS = frozenset({b"CS", b"LO", b"LT", b"SH", b"ST", b"UC", b"UT", b"", b"UN"})
FIRST_YEAR = 1970  # digital radiographs are newer; clocks that were reset say 1970 or earlier
REPLACED = "\N{REPLACEMENT CHARACTER}"  # by pydicom, for what the character set does not have
DATES = ("AcquisitionDate", "ContentDate", "StudyDate")  # the nearest to the exposure first
UID = re.compile(r"\d+(\.\d+)+", re.ASCII)
DATE = re.compile(r"(\d{4})([.-]?)(\d\d)\2(\d\d)", re.ASCII)  # with dots before DICOM 3


@dataclass(frozen=True)
class Origin:
    """UIDs by `valid_uid`, texts by `tidy`; None if absent, empty or too long for the Standard."""

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    modality: str | None = None
    station: str | None = None
    month: str | None = None  # YYYY-MM


def origin_of(elements: Elements) -> Origin:
    """The origin that the header names; invalid values become None, and raise nothing."""
    return Origin(
        study_instance_uid=valid_uid(elements.text("StudyInstanceUID")),
        series_instance_uid=valid_uid(elements.text("SeriesInstanceUID")),
        modality=tidy(elements.text("Modality")),
        station=_station(elements),
        month=next(filter(None, (month_of(elements.text(keyword)) for keyword in DATES)), None),
    )


def view_header_of(elements: Elements) -> ViewHeader:
    """The header's claims about view and body part; View Position is not cleaned."""
    orientation = tidy(elements.text("PatientOrientation"))
    if orientation and "\\" in orientation:
        orientation = "\\".join(value.strip() for value in orientation.split("\\"))
    described_view, claimed_by = _description(elements)
    return ViewHeader(
        elements.text("ViewPosition"),
        orientation,
        _view_code(elements),
        described_view,
        claimed_by,
        _body_part(elements),
    )


def decoded_text(value: bytes, character_set: str | None) -> str | None:
    """A raw value as text, without padding; None if it is not valid in its character set.

    Args:
        value: As it is stored.
        character_set: Specific Character Set (0008,0005), values separated by backslashes; None if
            the object declares none.
    """
    raw = value.strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        text = _decoded(raw, character_set)
    except (LookupError, ValueError):  # UnicodeError is one
        return None
    return None if REPLACED in text else text


def tidy(text: str | None) -> str | None:
    """A text without padding and unprintable characters; None if it is then empty or too long.

    Values that are too long are not cut, because two of them could begin alike.
    """
    if text is not None and not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    text = text.strip() if text else ""
    return text if 0 < len(text) <= MAX_CHARACTERS else None


def valid_uid(text: str | None) -> str | None:
    """A UID as it stands; None if it is none, or longer than 64.

    Anonymisers give all images one text that is no UID. No characters are removed, because the UIDs
    of two images could become one.

    References:
        PS3.5 9.1 UID Encoding Rules; components with leading zeros, which it forbids, are common.
    """
    is_uid = text is not None and len(text) <= MAX_CHARACTERS and UID.fullmatch(text)
    return text if is_uid else None


def month_of(text: str | None) -> str | None:
    """The month of a date; None if it is not a date, or not a plausible one for an image."""
    found = DATE.fullmatch(text or "")
    if not found:
        return None
    year, month, day = (int(found[part]) for part in (1, 3, 4))
    if not FIRST_YEAR <= year <= datetime.now(UTC).year:
        return None
    try:
        date(year, month, day)
    except ValueError:
        return None
    return f"{year}-{month:02}"


def _body_part(elements: Elements) -> str | None:
    if elements.vrs.get("BodyPartExamined", b"") not in TEXT_VRS:
        return None
    text = elements.text("BodyPartExamined") or ""
    spaced = "".join(each if each.isprintable() else " " for each in text)
    return tidy(" ".join(spaced.split()))


def _view_code(elements: Elements) -> str | None:
    if "ViewCodeSequence" not in elements.values:
        return None
    code = elements.code("ViewCodeSequence")
    value = code.get("CodeValue") or code.get("LongCodeValue") or b""
    parts = [
        part.decode("latin-1").strip(" \0").upper()
        for part in (code.get("CodingSchemeDesignator", b""), value)
    ]
    return tidy(":".join(parts)) if all(parts) else None


def _description(elements: Elements) -> tuple[View | None, ClaimedBy | None]:
    """The view that a description names, and the attribute's keyword; its text is not kept."""
    for keyword in DESCRIPTIONS:
        if view := view_named(_text(elements, keyword)):
            return view, keyword
    return None, None


def _station(elements: Elements) -> str | None:
    return tidy(_text(elements, "StationName"))


def _text(elements: Elements, keyword: str) -> str | None:
    return decoded_text(elements.values.get(keyword, b""), elements.text("SpecificCharacterSet"))


def _decoded(raw: bytes, declared: str | None) -> str:
    """Decode non-ASCII text: by the declared character sets, or else as UTF-8 or Latin-1.

    References:
        PS3.3 C.12.1.1.2 Specific Character Set; PS3.5 6.1.2.5 Code Extension.
    """
    if declared:
        names = [name.strip() for name in declared.split("\\")]
        return decode_bytes(raw, convert_encodings(names), set())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
