"""The attributes by which a radiograph is read, and where its Pixel Data lie: no more of a header.

pydicom takes up to a millisecond for a header of which a dozen values are needed, and copies Pixel
Data. It also follows whatever a header holds, which costs seconds where that is hostile.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Literal, NamedTuple

import imagecodecs
import numpy as np
from pydicom import uid

from service.imaging.attributes import (
    CODE,
    KEPT,
    LAST_OF_CODE,
    LAST_OF_LUT,
    LUT,
    MODALITY_LUT,
    PALETTES,
    PIXEL_DATA,
    PIXELS,
    SEQUENCES,
    WANTED,
)
from service.imaging.data_set import LONG, SHORT, Encoding, encoding_of, is_vr, offset_of
from service.imaging.decoders import as_bytes
from service.imaging.errors import (
    CorruptImageError,
    ImageTooLargeError,
    UnrecognisedFormatError,
)
from service.imaging.tensor import MAX_PIXELS

FILE_META = b"\2\0"
UNKNOWN = Encoding(implicit=True, little=True)  # of what lies in UN
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF  # length
# By whether the lowest byte is the first: heads of explicit and implicit VR, a length of 32 bits
UNPACK = {
    little: tuple(Struct(order + form).unpack_from for form in ("HH2sH", "HHL", "L"))
    for little, order in ((True, "<"), (False, ">"))
}
MAX_ELEMENTS = 50_000  # nested ones included: a header of empty elements must not take minutes
DIGITS = frozenset({b"DS", b"IS", b"LO", b"SH", b"UC", b"UT"})  # VRs in which a number may stand
SIGNED = frozenset({b"SL", b"SS", b"SV"})
FLOATS = {b"FL": "f", b"FD": "d"}
UNTOLD = frozenset({b"", b"UN"})
# Of an attribute; the longest of them that the Standard allows has 64, and the code of a sequence's
# first item is within these
MAX_VALUE_BYTES = 1024
MAX_TABLE_BYTES = 2 * 2**16  # as many entries as stored values of 16 bits
MAX_DEPTH = 100  # of sequences and items within each other; a structured report has twenty
MAX_INFLATED_BYTES = 2 * MAX_PIXELS + 2**24  # pixels of 16 bits, and a generous header


class Head(NamedTuple):
    """What stands before a value."""

    tag: int
    vr: bytes  # empty where it is implicit
    length: int  # bytes, or UNDEFINED
    start: int  # where the element begins


class PixelData(NamedTuple):
    """Pixel Data (7FE0,0010) as they lie in the object, not copied."""

    value: memoryview  # if endless: all that follows
    vr: bytes  # empty where it is implicit
    endless: bool  # its length is undefined, so fragments follow
    floating: bool  # it is Float or Double Float Pixel Data instead


@dataclass(frozen=True)
class Elements:
    """What was found before Pixel Data: raw values by keyword, empty ones left out."""

    values: dict[str, bytes]
    vrs: dict[str, bytes]  # of these values; empty where implicit
    pixels: PixelData | None
    modality_lut: bool
    header: memoryview  # the data set up to Pixel Data
    encoding: Encoding

    @property
    def little(self) -> bool:
        """Whether the lowest byte is the first."""
        return self.encoding.little

    def text(self, keyword: str) -> str | None:
        """The value without padding, in upper case; None where absent or empty."""
        value = self.values.get(keyword, b"").decode("latin-1").strip(" \0")
        return value.upper() or None

    def code(self, keyword: str) -> dict[str, bytes]:
        """The raw values of CODE in the first item of a sequence; none where it is damaged."""
        value = memoryview(self.values.get(keyword, b""))
        walk = _Walk(value, 0, self.encoding, kept=CODE)
        try:
            item = walk.head()
            if item.tag != ITEM:
                return {}
            if item.length != UNDEFINED:
                walk.data = value[: walk.at + item.length]
            walk.until(LAST_OF_CODE.__lt__)  # the end of an item, too, is beyond it
        except (CorruptImageError, struct.error):
            return {}
        return walk.values

    def integer(self, keyword: str, *, signed: bool = False) -> int:
        """The one value, of 16 bits: as a number or in digits, whatever VR it is written with.

        Raises:
            CorruptImageError: It is absent, or another value.
        """
        if keyword not in self.values:
            raise CorruptImageError(f"the object has no {keyword}")
        value, vr = self.values[keyword], self.vrs[keyword]
        if vr in UNTOLD:
            vr = b"IS" if keyword == "NumberOfFrames" else b"US"
        order: Literal["little", "big"] = "little" if self.little else "big"
        if vr in DIGITS:
            number = _decimal(value)
        elif len(value) in {2, 4, 8}:
            number = int.from_bytes(value, order, signed=vr in SIGNED)
        else:
            number = math.nan
        if not (-(2**15) <= number < 2**16 and number == int(number)):
            raise CorruptImageError(f"{keyword} is no whole number of 16 bits")
        unsigned = int(number) % 2**16
        return unsigned - 2**16 if signed and unsigned >= 2**15 else unsigned

    def decimal(self, keyword: str) -> float:
        """The one value, in digits or as a number; NaN where it is absent or neither."""
        value, vr = self.values.get(keyword, b""), self.vrs.get(keyword)
        if vr not in FLOATS:
            return _decimal(value)
        form = ("<" if self.little else ">") + FLOATS[vr]
        return (
            float(*struct.unpack(form, value)) if len(value) == struct.calcsize(form) else math.nan
        )

    def palettes(self) -> dict[str, bytes]:
        """The raw values of PALETTES."""
        walk = self._walk(PALETTES)
        walk.until(PIXELS.__contains__)
        return walk.values

    def table(self) -> dict[str, bytes]:
        """The raw values of LUT in the first item of the Modality LUT Sequence; none without it."""
        walk = self._walk(LUT)
        if not self.modality_lut or walk.until(MODALITY_LUT.__eq__) is None:
            return {}
        item = walk.head()
        if item.tag != ITEM:
            return {}
        if item.length != UNDEFINED:
            walk.data = self.header[: walk.at + item.length]
        walk.until(LAST_OF_LUT.__lt__)
        return walk.values

    def _walk(self, kept: Mapping[int | None, str]) -> _Walk:
        walk = _Walk(self.header, 0, self.encoding, kept=kept)
        walk.longest = MAX_TABLE_BYTES
        return walk


def read_elements(data: memoryview) -> Elements:
    """Find what is wanted of a DICOM object, with or without preamble and File Meta Information.

    Args:
        data: The whole file; it must not change while the result is in use.

    Returns:
        Views of `data`, or of its inflated copy where the transfer syntax says so.

    Raises:
        CorruptImageError: Cut off, or no sequence of elements. A struct.error says the same.
        ImageTooLargeError: A deflated object beyond MAX_INFLATED_BYTES.
        UnrecognisedFormatError: It begins as no data set does.

    References:
        PS3.5 7.1 Data Elements, 7.5 Nesting of Data Sets, A.5 Deflated; PS3.10 7.1.
    """
    start = offset_of(data)
    if start is None:
        raise UnrecognisedFormatError("the object begins as no DICOM data set does")
    meta = _Walk(data, start, Encoding(implicit=False, little=True))
    if bytes(data[start : start + 2]) == FILE_META:
        body = meta.until(lambda tag: tag >> 16 != 2)
        start = body.start if body else len(data)
    syntax = meta.values.get("TransferSyntaxUID", b"").strip(b" \0").decode("latin-1")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data, start = _inflated(data[start:]), 0
    encoding = encoding_of(data[start : start + 6])
    walk = _Walk(data, start, encoding)
    last = walk.until(PIXELS.__contains__)
    return Elements(
        values=walk.values | meta.values,
        vrs=walk.vrs | meta.vrs,
        pixels=_pixel_data(data, walk.at, last) if last else None,
        modality_lut=walk.modality_lut,
        header=data[start : last.start if last else len(data)],
        encoding=encoding,
    )


def _pixel_data(data: memoryview, at: int, head: Head) -> PixelData:
    endless = head.length == UNDEFINED
    value = data[at:] if endless else data[at : at + head.length]
    return PixelData(value, head.vr, endless, floating=head.tag != PIXEL_DATA)


def _decimal(value: bytes) -> float:
    """NaN where it is no number."""
    try:
        return float(value.strip(b" \0"))
    except ValueError:
        return math.nan


def _inflated(data: memoryview) -> memoryview:
    room = np.empty(MAX_INFLATED_BYTES, np.uint8).data  # untouched pages cost no memory
    try:
        return memoryview(imagecodecs.deflate_decode(as_bytes(data), raw=True, out=room))
    except (RuntimeError, ValueError) as error:
        if "INSUFFICIENT_SPACE" in str(error):
            raise ImageTooLargeError(
                f"the deflated object exceeds {MAX_INFLATED_BYTES} bytes"
            ) from None
        raise CorruptImageError("the deflated object is damaged or cut off") from None


class _Walk:
    """One pass over the elements of a data set; `at` is where it stands."""

    def __init__(
        self,
        data: memoryview,
        at: int,
        encoding: Encoding,
        *,
        kept: Mapping[int | None, str] = KEPT,
    ) -> None:
        self.kept = kept
        self.data, self.at = data, at
        self.read_as(encoding)
        self.left = MAX_ELEMENTS
        self.depth = -1  # of UN within each other
        self.longest = MAX_VALUE_BYTES
        self.values: dict[str, bytes] = {}
        self.vrs: dict[str, bytes] = {}
        self.modality_lut = False

    def read_as(self, encoding: Encoding) -> None:
        """From here on."""
        self.encoding, self.implicit = encoding, encoding.implicit
        self.unpack_explicit, self.unpack_implicit, self.unpack_length = UNPACK[encoding.little]

    def until(self, stop: Callable[[int], bool]) -> Head | None:
        """Keep what is wanted, up to the first tag at which to stop; None at the end."""
        while self.at + 8 <= len(self.data):
            head = self.head()
            if stop(head.tag):
                return head
            self._keep(head)
            self._skip(head)
        return None

    def head(self) -> Head:
        """What stands before a value; then `at` is at the value."""
        self.left -= 1
        if self.left < 0:
            raise CorruptImageError(f"the header has more than {MAX_ELEMENTS} elements")
        start, vr = self.at, b""
        group, element, vr, length = self.unpack_explicit(self.data, start)
        self.at += 8
        # Within explicit objects, some sequences are implicit: then no VR stands here
        if self.implicit or group == 0xFFFE or not (vr in SHORT or is_vr(vr)):
            vr = b""
            group, element, length = self.unpack_implicit(self.data, start)
        elif vr in LONG:
            (length,) = self.unpack_length(self.data, self.at)
            self.at += 4
        return Head(group << 16 | element, vr, length, start)

    def _keep(self, head: Head) -> None:
        if head.tag == MODALITY_LUT:
            self.modality_lut = head.length > 0
        keyword, length = self.kept.get(head.tag), head.length
        if keyword is None or length == 0:
            return
        if length > self.longest:
            if head.tag in WANTED:
                raise CorruptImageError(f"{keyword} has {length} bytes")
            if head.tag not in SEQUENCES:
                return
            length = self.longest
        self.values[keyword] = bytes(self.data[self.at : self.at + length])
        self.vrs[keyword] = head.vr

    def _skip(self, head: Head) -> None:
        """Past a value; where its length is undefined, past all that lies in it."""
        if head.vr != b"UN" or head.length != UNDEFINED:
            self._past(head)
            return
        # PS3.5 6.2.2, note 2: its items are of implicit VR, little endian, whatever holds them
        encoding, start, depth = self.encoding, self.at, self.depth
        try:
            self.read_as(UNKNOWN)
            self._past(head)
        except (CorruptImageError, struct.error):  # some writers keep the encoding of the object
            self.read_as(encoding)
            self.at, self.depth = start, depth
            self._past(head)
        self.read_as(encoding)

    def _past(self, head: Head) -> None:
        ends: list[int] = []  # what ends each sequence or item that is open
        self.depth += 1
        while True:
            if head.length != UNDEFINED:
                self.at += head.length
            elif head.vr == b"UN" and ends:
                self._skip(head)
            else:
                ends.append(ITEM_END if head.tag == ITEM else SEQUENCE_END)
            if self.at > len(self.data):
                raise CorruptImageError("the object is cut off within its header")
            if len(ends) + self.depth > MAX_DEPTH:
                raise CorruptImageError(f"sequences lie in each other more than {MAX_DEPTH} deep")
            while ends and (head := self.head()).tag == ends[-1]:
                ends.pop()
            if not ends:
                break
            if ends[-1] == SEQUENCE_END and head.tag != ITEM:
                raise CorruptImageError("a sequence holds something else than items")
        self.depth -= 1
