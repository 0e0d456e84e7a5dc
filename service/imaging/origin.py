"""Whence an image comes, by its header. For archives: never for a log, a metric or an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydicom.charset import convert_encodings, decode_bytes

from model_store import View
from service.imaging.elements import Elements
from service.imaging.header import DESCRIPTIONS, ClaimedBy, ViewHeader
from service.imaging.view_terms import view_named

MAX_CHARACTERS = 64  # the longest that the Standard allows for any of these
FIRST_YEAR = 1970  # digital radiographs are younger; clocks that were reset say 1970 or less
REPLACED = "\N{REPLACEMENT CHARACTER}"  # by pydicom, for what the character set does not have
DATES = ("AcquisitionDate", "ContentDate", "StudyDate")  # the nearest to the exposure first
DATE = re.compile(r"(\d{4})([.-]?)(\d\d)\2(\d\d)", re.ASCII)  # with dots before DICOM 3


@dataclass(frozen=True)
class Origin:
    """Cleaned by `tidy`; None where absent, empty or beyond what the Standard allows."""

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    modality: str | None = None
    station: str | None = None
    month: str | None = None  # YYYY-MM


def origin_of(elements: Elements) -> Origin:
    """What the header says; whatever stands there, this raises nothing."""
    return Origin(
        study_instance_uid=tidy(elements.text("StudyInstanceUID")),
        series_instance_uid=tidy(elements.text("SeriesInstanceUID")),
        modality=tidy(elements.text("Modality")),
        station=_station(elements),
        month=next(filter(None, (month_of(elements.text(keyword)) for keyword in DATES)), None),
    )


def view_header_of(elements: Elements) -> ViewHeader:
    """What the header claims; View Position as it stands there."""
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
    )


def tidy(text: str | None) -> str | None:
    """Without padding and what cannot be printed; None where nothing is left, or too much.

    A part of a value may be that of another: too long ones are left out, not cut.
    """
    if text is not None and not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    text = text.strip() if text else ""
    return text if 0 < len(text) <= MAX_CHARACTERS else None


def month_of(text: str | None) -> str | None:
    """The month of a date; None where it is no date, or none on which the image can be taken."""
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
    """The view that the first description names, and which that is: their text ends here."""
    for keyword in DESCRIPTIONS:
        if view := view_named(_text(elements, keyword)):
            return view, keyword
    return None, None


def _station(elements: Elements) -> str | None:
    return tidy(_text(elements, "StationName"))


def _text(elements: Elements, keyword: str) -> str | None:
    """A text in its character set; None where it is not one of that."""
    raw = elements.values.get(keyword, b"").strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        text = _decoded(raw, elements.text("SpecificCharacterSet"))
    except (LookupError, ValueError):  # UnicodeError is one
        return None
    return None if REPLACED in text else text


def _decoded(raw: bytes, declared: str | None) -> str:
    """Text of another character set: the declared ones, else UTF-8, or Latin-1 if it is not that.

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
