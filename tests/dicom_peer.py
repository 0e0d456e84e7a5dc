"""A DICOM peer made of bytes: it can send what no toolkit would."""

from __future__ import annotations

import io
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset, dcmread, uid
from pydicom.filereader import read_dataset

CR = uid.ComputedRadiographyImageStorage
EXPLICIT = uid.ExplicitVRLittleEndian
VERIFICATION = "1.2.840.10008.1.1"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
Context = tuple[int, str, Sequence[str]]  # id, abstract syntax, transfer syntaxes


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def value(context: int, control: int, data: bytes) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def association(
    contexts: Iterable[Context],
    called: str = "CXRVIEW",
    calling: str = "PEER",
    max_pdu: int = 16384,
    more: bytes = b"",
    application: str = "1.2.840.10008.3.1.1.1",
    version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ; `more` are sub-items of the user information."""
    items = item(0x10, application.encode())
    for number, abstract, syntaxes in contexts:
        names = item(0x30, abstract.encode()) if abstract else b""
        names += b"".join(item(0x40, each.encode()) for each in syntaxes)
        items += item(0x20, bytes([number, 0, 0, 0]) + names)
    items += item(0x50, item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.3.4") + more)
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", version, 0) + titles + bytes(32) + items)


def command(**elements: str | int) -> bytes:
    """A command set, by keyword of the elements below."""
    tags = {
        "AffectedSOPClassUID": 0x0002,
        "CommandField": 0x0100,
        "MessageID": 0x0110,
        "MessageIDBeingRespondedTo": 0x0120,
        "Priority": 0x0700,
        "CommandDataSetType": 0x0800,
        "Status": 0x0900,
        "ErrorComment": 0x0902,
        "AffectedSOPInstanceUID": 0x1000,
        "MoveOriginatorApplicationEntityTitle": 0x1030,
        "MoveOriginatorMessageID": 0x1031,
    }
    body = b""
    for keyword, each in sorted(elements.items(), key=lambda pair: tags[pair[0]]):
        raw = struct.pack("<H", each) if isinstance(each, int) else each.encode()
        raw += bytes(len(raw) % 2)
        body += struct.pack("<HHL", 0, tags[keyword], len(raw)) + raw
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_command(sop_class: str, instance: str, message: int = 1) -> bytes:
    return command(
        AffectedSOPClassUID=sop_class,
        CommandField=1,
        MessageID=message,
        Priority=0,
        CommandDataSetType=1,
        AffectedSOPInstanceUID=instance,
    )


ECHO = command(
    AffectedSOPClassUID=VERIFICATION, CommandField=0x30, MessageID=7, CommandDataSetType=0x101
)


def results(accepted: bytes) -> dict[int, int]:
    """The result of each presentation context of an A-ASSOCIATE-AC; 0 is acceptance."""
    found, at = {}, 68
    while at < len(accepted):
        kind, length = struct.unpack_from(">BxH", accepted, at)
        if kind == 0x21:
            found[accepted[at + 4]] = accepted[at + 6]
        at += 4 + length
    return found


@dataclass(frozen=True)
class Stored:
    """A Part 10 file as C-STORE sends it."""

    sop_class: str
    instance: str
    syntax: str
    data_set: bytes = field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> Stored:
        found = dcmread(io.BytesIO(data), stop_before_pixels=True)
        start = 132
        while data[start : start + 2] == b"\x02\0":  # File Meta Information
            long = data[start + 4 : start + 6] == b"OB"
            length = struct.unpack_from("<L" if long else "<H", data, start + 8 - 2 * (not long))
            start += length[0] + (12 if long else 8)
        syntax = found.file_meta.TransferSyntaxUID
        return cls(found.SOPClassUID, found.SOPInstanceUID, syntax, data[start:])

    @property
    def context(self) -> Context:
        return 1, self.sop_class, [self.syntax]

    def message(self, context: int = 1, size: int = 2**17) -> bytes:
        """The whole message, `size` bytes of data set a PDU."""
        return b"".join(self.pdus(context, size))

    def pdus(self, context: int = 1, size: int = 2**17) -> Iterator[bytes]:
        yield pdu(P_DATA, value(context, 3, store_command(self.sop_class, self.instance)))
        for start in range(0, len(self.data_set), size):
            last = start + size >= len(self.data_set)
            part = self.data_set[start : start + size]
            yield pdu(P_DATA, value(context, 2 * last, part))


class Peer:
    """A connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def associate(self, *contexts: Context, **options: str | int | bytes) -> tuple[int, bytes]:
        """Ask for an association; returns the type and body of the answer."""
        self.socket.sendall(association(contexts, **options))  # type: ignore[arg-type]
        return self.read()

    def read(self) -> tuple[int, bytes]:
        """The next PDU.

        Raises:
            EOFError: The connection has ended.
        """
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def status(self) -> Dataset:
        """The command set of a response."""
        kind, body = self.read()
        assert kind == P_DATA, (kind, body)
        return read_dataset(io.BytesIO(body[6:]), True, True)

    def store(self, stored: Stored, context: int = 1, size: int = 2**17) -> Dataset:
        """Send an object, and wait for its status."""
        self.socket.sendall(stored.message(context, size))
        return self.status()

    def echo(self, context: int = 1) -> int:
        """The status of C-ECHO."""
        self.socket.sendall(pdu(P_DATA, value(context, 3, ECHO)))
        return int(self.status().Status)

    def release(self) -> int:
        """The type of the answer."""
        self.socket.sendall(pdu(RELEASE_RQ, bytes(4)))
        return self.read()[0]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self.socket.recv(count - len(data))):
                raise EOFError
            data += more
        return data


@contextmanager
def peer(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A connection that is closed at the end of the block."""
    opened = Peer(port, tls)
    with opened.socket:
        yield opened
