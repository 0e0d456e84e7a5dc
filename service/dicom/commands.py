"""Command sets; requests are read, checked and answered before pynetdicom sees them.

pynetdicom drops a request that lacks an element, so that its peer waits in vain. It chooses what
serves a request by the SOP class that the request names, whatever its operation and presentation
context are. And a value that it does not accept, such as a UID of 65 characters, ends the
association. So it only gets requests that it can serve, encoded again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from service.dicom.instance import InstanceError
from service.dicom.pdu import PduError
from service.dicom.statuses import Status
from service.imaging import UnsupportedSopClassError, valid_uid

C_STORE, C_ECHO, C_CANCEL = 0x0001, 0x0030, 0x0FFF
# Command Field of requests (PS3.7 E.1)
OPERATIONS = {
    C_STORE: "C-STORE",
    0x0010: "C-GET",
    0x0020: "C-FIND",
    0x0021: "C-MOVE",
    C_ECHO: "C-ECHO",
    0x0100: "N-EVENT-REPORT",
    0x0110: "N-GET",
    0x0120: "N-SET",
    0x0130: "N-ACTION",
    0x0140: "N-CREATE",
    0x0150: "N-DELETE",
    C_CANCEL: "C-CANCEL",
}
RESPONSE = 0x8000  # a bit of Command Field
NO_DATA_SET = 0x0101  # any other Command Data Set Type says that one follows

UNRECOGNISED_OPERATION: Final = 0x0211
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
INVALID_SOP_INSTANCE: Final = 0x0117

# Element numbers of group 0000 (PS3.7 E.1)
GROUP_LENGTH = 0x0000
SOP_CLASS = 0x0002
FIELD = 0x0100
MESSAGE_ID = 0x0110
RESPONDED_TO = 0x0120
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
SOP_INSTANCE = 0x1000
ELEMENT = struct.Struct("<HHL")  # group, element, length: Implicit VR Little Endian
NUMBER = struct.Struct("<H")


class Refusal(NamedTuple):
    """Why a request is not served; the association goes on."""

    code: int  # a status
    reason: str  # for the log; nothing of the object
    status: Status | None  # of an object; None: the request is no C-STORE


@dataclass(frozen=True)
class Command:
    """The command set of a request."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class: str | None  # None: missing, or no UID
    sop_instance: str | None  # likewise

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a command set. A peer's other elements, such as Priority, have no effect here.

        Raises:
            PduError: It is damaged, or it cannot be told what to answer.
        """
        found = elements(data)
        field = number(found, FIELD)
        if field not in OPERATIONS:
            is_response = field is not None and field & RESPONSE
            raise PduError("a response without a request" if is_response else "an unknown command")
        message_id, kind = number(found, MESSAGE_ID), number(found, DATA_SET_TYPE)
        if kind is None:
            raise PduError(f"{OPERATIONS[field]} without Command Data Set Type")
        if message_id is None and field != C_CANCEL:
            raise PduError(f"{OPERATIONS[field]} without Message ID")
        if kind != NO_DATA_SET and field in (C_ECHO, C_CANCEL):
            raise PduError(f"{OPERATIONS[field]} with a data set")
        sop_class, sop_instance = _uid(found, SOP_CLASS), _uid(found, SOP_INSTANCE)
        return cls(field, message_id or 0, kind != NO_DATA_SET, sop_class, sop_instance)

    def refusal(self, abstract_syntax: str) -> Refusal | None:
        """Why it is not served; None: it is.

        Args:
            abstract_syntax: Of its presentation context, which is an accepted one.

        References:
            PS3.7 9.1.1.1.9, 9.1.5.1.4 and C.
        """
        if self.field == C_STORE:
            return self._store_refusal(abstract_syntax)
        operation = OPERATIONS[self.field]
        if self.field != C_ECHO or abstract_syntax != Verification:
            reason = f"{operation} is not offered in this presentation context"
            return Refusal(UNRECOGNISED_OPERATION, reason, None)
        if self.sop_class != Verification:
            reason = f"{operation} without the SOP class of its presentation context"
            return Refusal(SOP_CLASS_NOT_SUPPORTED, reason, None)
        return None

    def _store_refusal(self, abstract_syntax: str) -> Refusal | None:
        if self.sop_class != abstract_syntax or abstract_syntax == Verification:
            status = Status(SOP_CLASS_NOT_SUPPORTED, UnsupportedSopClassError.code)
            reason = "C-STORE without the SOP class of its presentation context"
            return Refusal(status.code, reason, status)
        if self.sop_instance is None:
            status = Status(INVALID_SOP_INSTANCE, InstanceError.code)
            return Refusal(status.code, "C-STORE without a valid SOP Instance UID", status)
        return None

    def encoded(self) -> bytes:
        """The command set: it holds these values, and no others that a peer has sent."""
        return _encoded(
            [
                *self._subject(),
                (FIELD, NUMBER.pack(self.field)),
                (MESSAGE_ID, NUMBER.pack(self.message_id)),
                *([(PRIORITY, NUMBER.pack(0))] if self.field == C_STORE else []),
                (DATA_SET_TYPE, NUMBER.pack(1 if self.has_data_set else NO_DATA_SET)),
            ]
        )

    def answer(self, refusal: Refusal) -> bytes:
        """The command set of the response that refuses it."""
        comment = refusal.status and refusal.status.comment
        return _encoded(
            [
                *self._subject(),
                (FIELD, NUMBER.pack(self.field | RESPONSE)),
                (RESPONDED_TO, NUMBER.pack(self.message_id)),
                (DATA_SET_TYPE, NUMBER.pack(NO_DATA_SET)),
                (STATUS, NUMBER.pack(refusal.code)),
                *([(ERROR_COMMENT, _padded(comment, b" "))] if comment else []),
            ]
        )

    def _subject(self) -> Iterable[tuple[int, bytes]]:
        for element, uid in ((SOP_CLASS, self.sop_class), (SOP_INSTANCE, self.sop_instance)):
            if uid is not None:
                yield element, _padded(uid, b"\0")


def elements(data: bytes) -> dict[int, bytes]:
    """The values of a command set, by element numbers.

    Raises:
        PduError: It is damaged.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + ELEMENT.size > len(data):
            raise PduError("a cut command set")
        group, element, length = ELEMENT.unpack_from(data, at)
        at += ELEMENT.size
        if group or element in found or at + length > len(data):
            raise PduError("a damaged command set")
        found[element] = data[at : at + length]
        at += length
    return found


def number(found: dict[int, bytes], element: int) -> int | None:
    """A value of the VR US; None: missing, or no such value."""
    value = found.get(element, b"")
    return NUMBER.unpack(value)[0] if len(value) == NUMBER.size else None


def _uid(found: dict[int, bytes], element: int) -> str | None:
    """A UID without its padding: a NUL, or by some peers a space."""
    return valid_uid(found.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace"))


def _encoded(values: Iterable[tuple[int, bytes]]) -> bytes:
    body = b"".join(
        ELEMENT.pack(0, element, len(value)) + value for element, value in sorted(values)
    )
    return ELEMENT.pack(0, GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def _padded(text: str, padding: bytes) -> bytes:
    data = text.encode("ascii")
    return data + padding * (len(data) % 2)
