"""PDUs of DICOM's upper layer, as far as the service reads and writes them itself (PS3.8 9.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

ASSOCIATE_RQ, P_DATA_TF = 1, 4
PDU_TYPES = range(1, 8)
# Announced to peers as the largest PDU that is accepted, without its 6 bytes of header
MAX_PDU_BYTES = 2**18

HEADER = struct.Struct(">BxL")  # type, length
ITEM = struct.Struct(">LBB")  # length, presentation context, message control header
SUB_ITEM = struct.Struct(">BxH")  # type, length: of the items of an association request or answer
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)
NOTHING = HEADER.pack(P_DATA_TF, 0)  # a PDU without values


class PduError(Exception):
    """The peer violates the protocol, so that the association must be aborted.

    The message is logged: it holds nothing that the peer has sent.
    """


def presentation_data_values(pdu: memoryview) -> Iterator[tuple[int, int]]:
    """Start and end of each presentation data value item, with its header (PS3.8 9.3.5.1).

    Raises:
        PduError: The lengths contradict each other.
    """
    start = HEADER.size
    while start < len(pdu):
        if start + ITEM.size > len(pdu):
            raise PduError("a cut presentation data value")
        end = start + 4 + ITEM.unpack_from(pdu, start)[0]
        if not start + ITEM.size <= end <= len(pdu):
            raise PduError("a presentation data value with a wrong length")
        yield start, end
        start = end


def fragments(data: bytes, kind: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Message control header and bytes of each part of a message (PS3.8 E.2).

    Args:
        data: A command set or data set.
        kind: COMMAND, or 0 for a data set.
        size: The most bytes of a part.
    """
    for start in range(0, len(data), size):
        end = start + size
        yield kind | (LAST if end >= len(data) else 0), data[start:end]


def sub_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item of an association request or answer (PS3.8 9.3.2, 9.3.3).

    Raises:
        PduError: An item is cut off.
    """
    at = 0
    while at < len(data):
        start = at + SUB_ITEM.size
        if start > len(data):
            raise PduError("a cut item of an association request or answer")
        kind, length = SUB_ITEM.unpack_from(data, at)
        at = start + length
        if at > len(data):
            raise PduError("a cut item of an association request or answer")
        yield kind, data[start:at]


def sub_item(kind: int, value: bytes) -> bytes:
    """One item of an association request or answer."""
    return SUB_ITEM.pack(kind, len(value)) + value
