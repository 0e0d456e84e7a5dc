"""Where a DICOM data set begins, and how it is encoded: by its first elements.

Many archives keep objects without the preamble of Part 10 or without File Meta Information.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

PREAMBLE = 128  # bytes
PREFIX = b"DICM"
FILE_META, IDENTIFYING = 0x0002, 0x0008  # groups with which a data set may begin
# PS3.5 7.1.2: these have lengths of 32 bits
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
BINARY = {"UL": 4, "OB": 2}  # bytes: group lengths, and File Meta Information Version
FIRST_BYTES = 512 - PREAMBLE  # two elements fit
MAX_FIRST_BYTES = 256  # of the first value; attributes of radiographs have 64
DIGITS = frozenset(b"0123456789.\0 ")


class Encoding(NamedTuple):
    """How elements are written."""

    implicit: bool  # no VR stands in them
    little: bool  # the lowest byte is the first


class First(NamedTuple):
    """The first element."""

    tag: int
    vr: str
    value: slice


def offset_of(data: bytes | memoryview) -> int | None:
    """Where the first element stands; None where this is no DICOM object.

    Args:
        data: The file, or its first bytes: 132, or 512 where an object has no preamble.
    """
    if data[PREAMBLE : PREAMBLE + 4] == PREFIX:
        return PREAMBLE + 4
    if data[:4] == PREFIX:
        return 4
    if _encoding_at(bytes(data[:FIRST_BYTES])):
        return 0
    behind = bytes(data[PREAMBLE : PREAMBLE + FIRST_BYTES])
    return PREAMBLE if not any(data[:PREAMBLE]) and _encoding_at(behind) else None


def encoding_of(data: bytes | memoryview) -> Encoding:
    """How the data set is written that begins here, whatever its transfer syntax says.

    Some writers name the wrong one of implicit and explicit, and few that of big and little endian.
    """
    first, second = bytes(data[:2]).ljust(2, b"\0")
    return Encoding(not is_vr(bytes(data[4:6])), little=first > 0 or second == 0)


def resembles_dicom(start: bytes) -> bool:
    """Whether this begins with a group of DICOM, though not as a data set does."""
    return start[:2] in {b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"} and b"\0" in start[2:4]


def is_vr(vr: bytes) -> bool:
    """Two capitals, of a VR that may be newer than this list."""
    return b"A" <= vr[:1] <= b"Z" and b"A" <= vr[1:] <= b"Z"


def _encoding_at(start: bytes) -> Encoding | None:
    """The only encoding in which the first two elements make sense."""
    encodings = (Encoding(i, little) for i in (False, True) for little in (True, False))
    return next((each for each in encodings if _is_plausible(start, each)), None)


def _is_plausible(start: bytes, encoding: Encoding) -> bool:
    try:
        first = _first(start, encoding)
        second = _head(start[first.value.stop :], encoding)
    except (struct.error, KeyError, ValueError):
        return False
    value = start[first.value]
    if first.vr in BINARY:
        fits = len(value) == BINARY[first.vr]
    elif first.vr == "UI":
        fits = len(value) > 0 and DIGITS.issuperset(value)
    else:
        fits = all(character >= 0x20 or character in {0, 0x1B} for character in value)
    tag, vr = second[:2]
    ordered = first.tag < tag and tag >> 16 in {FILE_META, IDENTIFYING}
    return fits and ordered and (encoding.implicit or vr in SHORT | LONG)


def _first(start: bytes, encoding: Encoding) -> First:
    """The first element; ValueError or KeyError where none can be so."""
    tag, vr, length, at = _head(start, encoding)
    known = "UL" if tag & 0xFFFF == 0 else dictionary_VR(tag)
    if tag >> 16 not in {FILE_META, IDENTIFYING} or length > MAX_FIRST_BYTES or length % 2:
        raise ValueError("no first element")
    if not encoding.implicit and vr != known.encode():
        raise ValueError("of another VR")
    if known in {"SQ", "UN"}:
        raise ValueError("no value to judge by")
    return First(tag, known, slice(at, at + length))


def _head(start: bytes, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, VR, length, and where the value begins."""
    order = "<" if encoding.little else ">"
    if encoding.implicit:
        group, element, length = struct.unpack_from(f"{order}HHL", start)
        return group << 16 | element, b"", length, 8
    group, element, vr, length = struct.unpack_from(f"{order}HH2sH", start)
    if vr in LONG:
        return group << 16 | element, vr, struct.unpack_from(f"{order}L", start, 8)[0], 12
    return group << 16 | element, vr, length, 8
