"""The requestor of an association that stores Structured Reports, one at a time.

pynetdicom's own reads a PDU of any declared length and commands without end into memory, waits for
each byte anew, and does not tell which request a response belongs to. Its threads cannot be stopped
while a peer sends slowly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from service.dicom.association_request import APPLICATION_CONTEXT
from service.dicom.commands import (
    C_STORE,
    DATA_SET_TYPE,
    FIELD,
    NO_DATA_SET,
    RESPONDED_TO,
    RESPONSE,
    SOP_CLASS,
    SOP_INSTANCE,
    STATUS,
    Command,
    elements,
    number,
)
from service.dicom.pdu import (
    ASSOCIATE_RQ,
    COMMAND,
    HEADER,
    ITEM,
    LAST,
    P_DATA_TF,
    PDU_TYPES,
    PduError,
    fragments,
    presentation_data_values,
    sub_item,
    sub_items,
)
from service.dicom.senders.connection import Connection

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 5, 6, 7
RELEASED = HEADER.pack(RELEASE_RP, 4) + bytes(4)
ABORTED = HEADER.pack(ABORT, 4) + bytes(4)  # by the service user
CONTEXT = 1  # the number of the only presentation context
FIXED_BYTES = 68  # of A-ASSOCIATE-RQ and -AC, after the header (PS3.8 9.3.2 and 9.3.3)
LENGTH = struct.Struct(">L")
# Of a PDU without its header: what is accepted, and the most that is sent
PDU_BYTES = 2**14


class RejectedAssociationError(Exception):
    """The peer takes no Structured Reports now.

    Args:
        detail: Holds nothing that the peer wrote in words.
    """


class Accepted(NamedTuple):
    """What the peer answered for the presentation context."""

    syntax: str  # the transfer syntax
    fragment_bytes: int  # the most that a presentation data value may hold


class Association:
    """An association with one presentation context.

    Args:
        connection: It is to be closed by `close`.
        called: AE title.
        calling: AE title.

    Raises:
        RejectedAssociationError: The peer rejects it, or its presentation context.
        PduError: The peer violates the protocol.
        OSError: The connection is lost; TimeoutError: no answer in time.
    """

    def __init__(self, connection: Connection, called: str, calling: str) -> None:
        self._connection, self._message = connection, 0
        try:
            self._accepted = self._opened(called, calling)
        except BaseException:
            self.abort()
            raise

    @property
    def syntax(self) -> str:
        """The transfer syntax of data sets."""
        return self._accepted.syntax

    def is_open(self) -> bool:
        """Whether the peer still has the association; it is closed if not."""
        found = self._connection.unasked(HEADER.size + 4)
        if found is None:
            return True
        wants_release = found[:1] == bytes([RELEASE_RQ])
        self._connection.close(RELEASED if wants_release else ABORTED)
        return False

    def store(self, instance: str, data_set: bytes, seconds: float) -> int:
        """Send a report, and wait for its status.

        Args:
            instance: Its SOP Instance UID.
            data_set: In the transfer syntax of the association.
            seconds: For all of it.

        Raises:
            PduError, OSError: As above; the association is of no more use.
        """
        self._connection.limit(seconds)
        self._message = self._message % 0xFFFF + 1
        command = Command(
            field=C_STORE,
            message_id=self._message,
            has_data_set=True,
            sop_class=Comprehensive3DSRStorage,
            sop_instance=instance,
        )
        size = self._accepted.fragment_bytes
        pdus = (*_pdus(command.encoded(), COMMAND, size), *_pdus(data_set, 0, size))
        self._connection.write(b"".join(pdus))  # at once: TCP delays the second of two writes
        return _status(self._response(), self._message, instance)

    def release(self, seconds: float) -> None:
        """End it in order if the peer agrees in time, and otherwise abort it."""
        try:
            self._connection.limit(seconds)
            self._connection.write(HEADER.pack(RELEASE_RQ, 4) + bytes(4))
            kind, _ = self._pdu()
        except (OSError, PduError):
            kind = ABORT
        self._connection.close(b"" if kind == RELEASE_RP else ABORTED)

    def abort(self) -> None:
        """End it at once."""
        self._connection.close(ABORTED)

    def _opened(self, called: str, calling: str) -> Accepted:
        self._connection.write(_request(called, calling))
        kind, pdu = self._pdu()
        if kind == ASSOCIATE_RJ:
            raise RejectedAssociationError("the association is rejected")
        if kind != ASSOCIATE_AC:
            raise PduError("no answer to the association request")
        return _accepted(pdu[HEADER.size :])

    def _response(self) -> dict[int, bytes]:
        """The next command set."""
        command = bytearray()
        while True:
            kind, pdu = self._pdu()
            if kind != P_DATA_TF or len(pdu) == HEADER.size:
                raise PduError("no response")
            for start, end in presentation_data_values(memoryview(pdu)):
                _, context, control = ITEM.unpack_from(pdu, start)
                if context != CONTEXT or not control & COMMAND:
                    raise PduError("no response in the presentation context of the request")
                command += pdu[start + ITEM.size : end]
                if control & LAST:
                    if end != len(pdu):
                        raise PduError("more than one response")
                    return elements(bytes(command))

    def _pdu(self) -> tuple[int, bytes]:
        """Type and bytes of the next PDU."""
        header = self._connection.read(HEADER.size)
        kind, length = HEADER.unpack(header)
        if kind not in PDU_TYPES:
            raise PduError("a PDU of an unknown type")
        if kind == ABORT:
            raise ConnectionAbortedError
        if kind == RELEASE_RQ:
            self._connection.write(RELEASED)
            raise ConnectionAbortedError
        return kind, header + self._connection.read(length)


def _request(called: str, calling: str) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2, PS3.7 D.3.3)."""
    names = [(0x30, Comprehensive3DSRStorage), *((0x40, each) for each in SYNTAXES)]
    context = bytes([CONTEXT, 0, 0, 0]) + b"".join(sub_item(k, v.encode()) for k, v in names)
    user = (
        sub_item(0x51, LENGTH.pack(PDU_BYTES))
        + sub_item(0x52, PYNETDICOM_IMPLEMENTATION_UID.encode())
        + sub_item(0x55, PYNETDICOM_IMPLEMENTATION_VERSION.encode())
    )
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = b"".join(
        (
            b"\0\1\0\0",  # protocol version
            titles.ljust(FIXED_BYTES - 4, b"\0"),
            sub_item(0x10, APPLICATION_CONTEXT.encode()),
            sub_item(0x20, context),
            sub_item(0x50, user),
        )
    )
    return HEADER.pack(ASSOCIATE_RQ, len(body)) + body


def _accepted(body: bytes) -> Accepted:
    """Read an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    contexts, most = [], PDU_BYTES
    for kind, data in sub_items(body[FIXED_BYTES:]):
        if kind == 0x21:
            contexts.append(data)
        elif kind == 0x50:
            for sub_kind, value in sub_items(data):
                if sub_kind == 0x51 and len(value) == LENGTH.size:  # 0: any length
                    most = min(LENGTH.unpack(value)[0] or PDU_BYTES, PDU_BYTES)
    if len(contexts) != 1 or len(contexts[0]) < 4 or contexts[0][0] != CONTEXT:
        raise PduError("other presentation contexts than were asked for")
    if result := contexts[0][2]:
        detail = f"it accepts no Comprehensive 3D SR: result {result}"
        raise RejectedAssociationError(detail)
    syntaxes = [value.rstrip(b"\0 ") for kind, value in sub_items(contexts[0][4:]) if kind == 0x40]
    found = [each for each in SYNTAXES if syntaxes == [each.encode()]]
    if not found:
        raise PduError("a transfer syntax that was not proposed")
    # An item's length and header are part of a PDU, and fragments have an even length
    fragment = (most - ITEM.size) // 2 * 2
    if fragment <= 0:
        raise PduError(f"a maximum length of {most} bytes")
    return Accepted(found[0], fragment)


def _pdus(data: bytes, kind: int, size: int) -> Iterator[bytes]:
    """A P-DATA-TF for each part of a command set or data set (PS3.8 9.3.5)."""
    for control, part in fragments(data, kind, size):
        value = ITEM.pack(len(part) + 2, CONTEXT, control) + part
        yield HEADER.pack(P_DATA_TF, len(value)) + value


def _status(response: dict[int, bytes], message: int, instance: str) -> int:
    """The status of a response to this request (PS3.7 9.3.1.2)."""
    if number(response, FIELD) != C_STORE | RESPONSE:
        raise PduError("a response to another operation")
    if number(response, RESPONDED_TO) != message:
        raise PduError("a response to another message")
    # May be missing; then they are those of the request
    for element, uid in ((SOP_CLASS, Comprehensive3DSRStorage), (SOP_INSTANCE, instance)):
        found = response.get(element, b"").strip(b"\0 ")
        if found not in (b"", uid.encode()):
            raise PduError("a response about another instance")
    status = number(response, STATUS)
    if status is None or number(response, DATA_SET_TYPE) != NO_DATA_SET:
        raise PduError("a response without a status, or with a data set")
    return status
