"""Parse the elements of a DICOM header in one pass, within limits of time, memory and depth."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple

from service.imaging.attributes import KEPT, MODALITY_LUT, SEQUENCES, WANTED
from service.imaging.data_set import LONG, SHORT, Encoding, is_vr
from service.imaging.errors import CorruptImageError

UNKNOWN = Encoding(implicit=True, little=True)  # the encoding within UN
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF  # length
# By little endian: the heads of explicit and of implicit VR, and a length of 32 bits
UNPACK = {
    little: tuple(Struct(order + form).unpack_from for form in ("HH2sH", "HHL", "L"))
    for little, order in ((True, "<"), (False, ">"))
}
MAX_ELEMENTS = 50_000  # including nested ones: many empty elements must not take minutes
# The longest value of an attribute: the Standard allows at most 64 for these, and the code in the
# first item of a sequence fits, too
MAX_VALUE_BYTES = 1024
MAX_DEPTH = 100  # of nested sequences and items; a structured report has twenty


class Head(NamedTuple):
    """The head of an element: everything before its value."""

    tag: int
    vr: bytes  # empty for implicit VR
    length: int  # bytes, or UNDEFINED
    start: int  # offset of the element


class Walk:
    """One pass over the elements of a data set; `at` is the current offset."""

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
        self.depth = -1  # of nested UN
        self.longest = MAX_VALUE_BYTES
        self.values: dict[str, bytes] = {}
        self.vrs: dict[str, bytes] = {}
        self.modality_lut = False

    def read_as(self, encoding: Encoding) -> None:
        """Set the encoding of the next elements."""
        self.encoding, self.implicit = encoding, encoding.implicit
        self.unpack_explicit, self.unpack_implicit, self.unpack_length = UNPACK[encoding.little]

    def until(self, stop: Callable[[int], bool]) -> Head | None:
        """Keep wanted values up to the first tag for which `stop` is true; None at the end."""
        while self.at + 8 <= len(self.data):
            head = self.head()
            if stop(head.tag):
                return head
            self._keep(head)
            self._skip(head)
        return None

    def head(self) -> Head:
        """Read the head of an element; afterwards `at` is the offset of its value."""
        self.left -= 1
        if self.left < 0:
            raise CorruptImageError(f"the header has more than {MAX_ELEMENTS} elements")
        start, vr = self.at, b""
        group, element, vr, length = self.unpack_explicit(self.data, start)
        self.at += 8
        # Some sequences in explicit objects are implicit, and have no VR here
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
        """Skip a value, with all nested elements if its length is undefined."""
        if head.vr != b"UN" or head.length != UNDEFINED:
            self._past(head)
            return
        # PS3.5 6.2.2, note 2: items in UN are implicit VR, little endian, in any object
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
        ends: list[int] = []  # the end tags of the open sequences and items
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
