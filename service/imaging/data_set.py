"""Find the start and the encoding of a DICOM data set by its first elements.

Many archives store objects without the preamble of Part 10, or without File Meta Information.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

PREAMBLE = 128  # bytes
PREFIX = b"DICM"
FILE_META, IDENTIFYING = 0x0002, 0x0008  # groups of a first element
# PS3.5 7.1.2: VRs with lengths of 32 bits
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
BINARY = {"UL": 4, "OB": 2}  # length in bytes: group length, File Meta Information Version
FIRST_BYTES = 512 - PREAMBLE  # enough for two elements
MAX_FIRST_BYTES = 256  # length of the first value; attributes of radiographs have up to 64
DIGITS = frozenset(b"0123456789.\0 ")


class Encoding(NamedTuple):
    """How the elements of a data set are encoded."""

    implicit: bool  # implicit VR
    little: bool  # little endian


class First(NamedTuple):
    """The first element."""

    tag: int
    vr: str
    value: slice


def offset_of(data: bytes | memoryview) -> int | None:
    """The offset of the first element; None if this is not a DICOM object.

    Args:
        data: The file, or its first bytes: 132, or 512 for an object without a preamble.
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
    """The encoding of the data set that begins here, by content.

    The transfer syntax is not used: some writers confuse implicit and explicit VR, and a few big
    and little endian.
    """
    first, second = bytes(data[:2]).ljust(2, b"\0")
    return Encoding(not is_vr(bytes(data[4:6])), little=first > 0 or second == 0)


def resembles_dicom(start: bytes) -> bool:
    """Whether this begins with a DICOM group, although it is not a data set."""
    return start[:2] in {b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"} and b"\0" in start[2:4]


def is_vr(vr: bytes) -> bool:
    """Whether these are two capitals: a VR, perhaps newer than the lists above."""
    return b"A" <= vr[:1] <= b"Z" and b"A" <= vr[1:] <= b"Z"


def _encoding_at(start: bytes) -> Encoding | None:
    """The encoding in which the first two elements are plausible; None if there is none."""
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
    """The first element; ValueError or KeyError if it is not plausible."""
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
    """Tag, VR and length of an element, and the offset of its value."""
    order = "<" if encoding.little else ">"
    if encoding.implicit:
        group, element, length = struct.unpack_from(f"{order}HHL", start)
        return group << 16 | element, b"", length, 8
    group, element, vr, length = struct.unpack_from(f"{order}HH2sH", start)
    if vr in LONG:
        return group << 16 | element, vr, struct.unpack_from(f"{order}L", start, 8)[0], 12
    return group << 16 | element, vr, length, 8
