"""Destinations that break the protocol: an attempt ends in time, and is told from a delivery."""

from __future__ import annotations

import io
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from destination_servers import certificate, http_peer, server_tls, store_peer
from dicom_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    Peer,
    command,
    item,
    pdu,
    value,
)
from dicom_results import answered, cards
from pydicom.filereader import read_dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom import evt

from model_store import Prediction
from service.dicom.delivery import Deliveries
from service.dicom.destinations import Destination, payload, read_destinations
from service.dicom.entries import Entry, Leased
from service.dicom.outbox import Outbox
from service.dicom.senders.opening import open_sender
from service.dicom.senders.sender import RejectedError, RetryableError

RESULT = answered(cards().plain, Prediction(0.99, None, None, None, None))
SECONDS = 0.5  # the time limit of an attempt
LATE_SECONDS = 5.0  # what a busy machine may add
SENT_BYTES = 32 * 2**20  # more than buffers of sockets hold


class Raw:
    """A server of bytes.

    Attributes:
        sent: So many bytes, until the client closed the connection.
        received: The types of the PDUs.
    """

    def __init__(self) -> None:
        self.ending = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sent, self.received, self.connections = 0, list[int](), 0

    def say(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def repeat(self, connection: socket.socket, data: bytes, wait: float = 0) -> None:
        """Without end."""
        while not self.ending.wait(wait):
            self.say(connection, data)

    def drip(self, connection: socket.socket, data: bytes) -> None:
        """A byte in half of the time limit."""
        for each in data:
            if self.ending.wait(SECONDS / 2):
                return
            self.say(connection, bytes([each]))


Act = Callable[[Raw, socket.socket], None]


@contextmanager
def raw(act: Act) -> Iterator[Raw]:
    """Serve connections, one after the other, until the block ends."""
    server = Raw()

    def serve() -> None:
        while not server.ending.is_set():
            try:
                connection, _ = server.listener.accept()
            except OSError:
                return
            server.connections += 1
            with connection, suppress(OSError, EOFError):
                connection.settimeout(20)
                act(server, connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join(30)
        assert not thread.is_alive()


def destination(folder: Path, *lines: str) -> Destination:
    (folder / "secret").write_text("0123456789abcdef")
    path = folder / "destinations.toml"
    limit = f"timeout_seconds = {SECONDS}"
    path.write_text("\n".join(("[destinations.here]", limit, *lines)))
    return read_destinations(path)[0]


def pacs(folder: Path, port: int, *more: str) -> Destination:
    where = ('kind = "c-store"', 'host = "127.0.0.1"', f"port = {port}", 'called_ae_title = "PACS"')
    return destination(folder, *where, *more)


def hook(folder: Path, url: str, *more: str) -> Destination:
    return destination(
        folder, 'kind = "webhook"', f'url = "{url}"', 'secret_file = "secret"', *more
    )


def leased(given: Destination) -> Leased:
    return Leased(1, given.name, "1.2", payload(given, RESULT), 1, 0.0, None, "lease")


def failure(given: Destination) -> RetryableError:
    """How one attempt ends, in time."""
    sender = open_sender(given)
    begin = time.monotonic()
    with pytest.raises(RetryableError) as error:
        sender.send(leased(given))
    assert time.monotonic() - begin < SECONDS + LATE_SECONDS
    sender.close()
    return error.value


class Entity(Peer):
    """The acceptor of an association, at this end of a connection."""

    def __init__(self, raw: Raw, connection: socket.socket) -> None:
        self.socket, self._raw = connection, raw

    def read(self) -> tuple[int, bytes]:
        kind, body = super().read()
        self._raw.received.append(kind)
        return kind, body

    def asked(self) -> tuple[int, str]:
        """Message ID and SOP Instance UID of the next C-STORE, whose data set is read."""
        commands, control = b"", 0
        while control != 2:
            kind, body = self.read()
            if kind != P_DATA:
                raise EOFError
            control = body[5]
            if control & 1:
                commands += body[6:]
        asked = read_dataset(io.BytesIO(commands), True, True)
        return int(asked.MessageID), str(asked.AffectedSOPInstanceUID)


def accept(
    *, result: int = 0, syntax: str = ExplicitVRLittleEndian, number: int = 1, most: int = 16384
) -> bytes:
    """An A-ASSOCIATE-AC with one presentation context."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    items += item(0x21, bytes([number, 0, result, 0]) + item(0x40, syntax.encode()))
    items += item(0x50, item(0x51, struct.pack(">L", most)) + item(0x52, b"1.2.3"))
    return pdu(ASSOCIATE_AC, struct.pack(">HH", 1, 0) + bytes(64) + items)


def response(message: int, instance: str, **changed: str | int | None) -> bytes:
    """A C-STORE response with status 0000H; None: an element is missing."""
    elements = {
        "AffectedSOPClassUID": Comprehensive3DSRStorage,
        "CommandField": 0x8001,
        "MessageIDBeingRespondedTo": message,
        "CommandDataSetType": 0x0101,
        "Status": 0,
        "AffectedSOPInstanceUID": instance,
        **changed,
    }
    return command(**{name: each for name, each in elements.items() if each is not None})


def associating(act: Act) -> Act:
    """Read the association request first."""

    def do(raw: Raw, connection: socket.socket) -> None:
        Entity(raw, connection).read()
        act(raw, connection)

    return do


def storing(act: Callable[[Raw, socket.socket, int, str], None]) -> Act:
    """Accept the association and read a C-STORE first."""

    def do(raw: Raw, connection: socket.socket) -> None:
        entity = Entity(raw, connection)
        entity.read()
        connection.sendall(accept())
        act(raw, connection, *entity.asked())

    return do


def responding(context: int = 1, control: int = 3, **changed: str | int | None) -> Act:
    return storing(
        lambda _, connection, message, instance: connection.sendall(
            pdu(P_DATA, value(context, control, response(message, instance, **changed)))
        )
    )


ZEROS = bytes(2**16)
PACS: dict[str, tuple[Act, str]] = {
    "a PDU of 4 GiB": (
        associating(
            lambda raw, connection: (
                connection.sendall(b"\2\0\xff\xff\xff\xff"),
                raw.repeat(connection, ZEROS),
            )[1]
        ),
        "unexpected_answer",
    ),
    "a command without end": (
        storing(
            lambda raw, connection, *_: raw.repeat(connection, pdu(P_DATA, value(1, 1, ZEROS)))
        ),
        "unexpected_answer",
    ),
    "PDUs without values": (
        storing(lambda raw, connection, *_: raw.repeat(connection, pdu(P_DATA, b"") * 1000)),
        "unexpected_answer",
    ),
    "pending without end": (responding(Status=0xFF00), "unexpected_answer"),
    "silence": (lambda raw, _: (raw.ending.wait(20), None)[1], "timeout"),
    "an acceptance, byte by byte": (
        associating(lambda raw, connection: raw.drip(connection, accept())),
        "timeout",
    ),
    "a response, byte by byte": (
        storing(
            lambda raw, connection, message, instance: raw.drip(
                connection, pdu(P_DATA, value(1, 3, response(message, instance)))
            )
        ),
        "timeout",
    ),
    "no response": (storing(lambda raw, *_: (raw.ending.wait(20), None)[1]), "timeout"),
    "another message": (responding(MessageIDBeingRespondedTo=777), "unexpected_answer"),
    "another instance": (responding(AffectedSOPInstanceUID="1.2.3"), "unexpected_answer"),
    "another SOP class": (responding(AffectedSOPClassUID="1.2.3"), "unexpected_answer"),
    "an echo response": (responding(CommandField=0x8030), "unexpected_answer"),
    "a request": (responding(CommandField=0x0001), "unexpected_answer"),
    "no status": (responding(Status=None), "unexpected_answer"),
    "no message": (responding(MessageIDBeingRespondedTo=None), "unexpected_answer"),
    "a data set": (responding(CommandDataSetType=1), "unexpected_answer"),
    "another context in the response": (responding(context=3), "unexpected_answer"),
    "a data set as response": (responding(control=2), "unexpected_answer"),
    "a cut command": (
        storing(
            lambda _, connection, message, instance: connection.sendall(
                pdu(P_DATA, value(1, 3, response(message, instance)[:-3]))
            )
        ),
        "unexpected_answer",
    ),
    "a value beyond its PDU": (
        storing(lambda _, connection, *__: connection.sendall(pdu(P_DATA, b"\0\0\1\0\1\3"))),
        "unexpected_answer",
    ),
    "an unknown PDU": (
        associating(lambda _, connection: connection.sendall(b"\xff" * 100)),
        "unexpected_answer",
    ),
    "a cut acceptance": (
        associating(lambda _, connection: connection.sendall(pdu(ASSOCIATE_AC, accept()[6:-5]))),
        "unexpected_answer",
    ),
    "an empty acceptance": (
        associating(lambda _, connection: connection.sendall(pdu(ASSOCIATE_AC, b""))),
        "unexpected_answer",
    ),
    "a response before the acceptance": (
        associating(lambda _, connection: connection.sendall(pdu(P_DATA, b""))),
        "unexpected_answer",
    ),
    "a syntax that was not proposed": (
        associating(lambda _, connection: connection.sendall(accept(syntax=JPEGBaseline8Bit))),
        "unexpected_answer",
    ),
    "a context that was not asked for": (
        associating(lambda _, connection: connection.sendall(accept(number=99))),
        "unexpected_answer",
    ),
    "PDUs of 7 bytes": (
        associating(lambda _, connection: connection.sendall(accept(most=7))),
        "unexpected_answer",
    ),
    "a rejection": (
        associating(
            lambda _, connection: connection.sendall(pdu(ASSOCIATE_RJ, b"\0\1\1\7")),
        ),
        "association_rejected",
    ),
    **{
        f"result {each} for the context": (
            associating(
                lambda _, connection, each=each: connection.sendall(  # type: ignore[misc]
                    accept(result=each)
                )
            ),
            "association_rejected",
        )
        for each in (1, 2, 3, 4)
    },
    "an abort": (
        storing(lambda _, connection, *__: connection.sendall(pdu(ABORT, bytes(4)))),
        "unreachable",
    ),
    "a release in place of a response": (
        storing(lambda _, connection, *__: connection.sendall(pdu(RELEASE_RQ, bytes(4)))),
        "unreachable",
    ),
    "the end of the connection": (storing(lambda *_: None), "unreachable"),
}


@pytest.mark.parametrize("name", PACS)
def test_a_faulty_entity_is_away(tmp_path: Path, name: str) -> None:
    """It is tried again later, whatever it does: nothing is delivered, lost, or waited for long."""
    act, code = PACS[name]
    with raw(act) as server:
        found = failure(pacs(tmp_path, server.port))
    assert (found.code, found.away) == (code, True)
    assert server.sent < SENT_BYTES


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("most", [0, 8, 9, 2**32 - 1])
def test_an_odd_entity_gets_the_report(tmp_path: Path, most: int, syntax: str) -> None:
    """PDUs as small as it wants, and a response without what it may lack."""
    sizes = []

    def act(raw: Raw, connection: socket.socket) -> None:
        entity = Entity(raw, connection)
        entity.read()
        connection.sendall(accept(most=most, syntax=syntax))
        for missing in ({}, {"AffectedSOPClassUID": None, "AffectedSOPInstanceUID": None}):
            message, instance = entity.asked()
            sizes.append(message)
            said = response(message, instance, **missing)
            parts = (value(1, 1, said[:10]), value(1, 1, b""), value(1, 3, said[10:]))
            connection.sendall(pdu(P_DATA, parts[0] + parts[1]) + pdu(P_DATA, parts[2]))
        assert entity.read()[0] == RELEASE_RQ
        connection.sendall(pdu(RELEASE_RP, bytes(4)))

    with raw(act) as server:
        given = pacs(tmp_path, server.port).model_copy(update={"timeout_seconds": 10.0})
        sender = open_sender(given)
        for _ in range(2):
            assert sender.send(leased(given)) is None
        sender.close()
    assert sizes == [1, 2]
    assert server.received[-1] == RELEASE_RQ


@pytest.mark.parametrize("end", ["idle", "close"])
def test_an_association_ends_by_release(tmp_path: Path, end: str) -> None:
    """Also after it was idle for longer than the time limit: PACSs log an abort as an error."""
    ends = []
    handlers = {"released": evt.EVT_RELEASED, "aborted": evt.EVT_ABORTED}
    with store_peer() as peer:
        for name, event in handlers.items():
            peer.server.bind(event, lambda _, name: ends.append(name), [name])
        given = pacs(tmp_path, peer.port)
        sender = open_sender(given)
        sender.send(leased(given))
        time.sleep(1.5 * SECONDS)
        getattr(sender, end)()
        deadline = time.monotonic() + LATE_SECONDS
        while not ends and time.monotonic() < deadline:
            time.sleep(0.02)
        sender.close()
    assert ends == ["released"]


@pytest.mark.parametrize(
    ("last", "answer"), [(pdu(RELEASE_RQ, bytes(4)), RELEASE_RP), (pdu(ABORT, bytes(4)), None)]
)
def test_an_association_that_the_entity_ends_is_opened_again(
    tmp_path: Path, last: bytes, answer: int | None
) -> None:
    """Between two results; a request for release is answered."""
    ended = threading.Event()

    def act(raw: Raw, connection: socket.socket) -> None:
        entity = Entity(raw, connection)
        entity.read()
        connection.sendall(accept())
        message, instance = entity.asked()
        connection.sendall(pdu(P_DATA, value(1, 3, response(message, instance))) + last)
        ended.set()
        entity.read()

    with raw(act) as server:
        given = pacs(tmp_path, server.port)
        sender = open_sender(given)
        for _ in range(2):
            ended.clear()
            assert sender.send(leased(given)) is None
            assert ended.wait(LATE_SECONDS)
        assert server.connections == 2
        sender.close()
    if answer is not None:
        assert server.received.count(answer) == 2


def test_an_entity_that_does_not_release_is_left(tmp_path: Path, capfd) -> None:
    """Soon, and without a trace on standard error."""

    def act(raw: Raw, connection: socket.socket) -> None:
        entity = Entity(raw, connection)
        entity.read()
        connection.sendall(accept())
        message, instance = entity.asked()
        connection.sendall(pdu(P_DATA, value(1, 3, response(message, instance))))
        while True:
            entity.read()

    with raw(act) as server:
        given = pacs(tmp_path, server.port)
        sender = open_sender(given)
        sender.send(leased(given))
        begin = time.monotonic()
        sender.close()
        assert time.monotonic() - begin < SECONDS + LATE_SECONDS
    assert server.received[-2:] == [RELEASE_RQ, ABORT]
    assert capfd.readouterr().err == ""


HTTP: dict[str, tuple[Act, str]] = {
    "a header, byte by byte": (
        lambda raw, connection: (
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: "),
            raw.repeat(connection, b"a", SECONDS / 4),
        )[1],
        "timeout",
    ),
    "100 Continue without end": (
        lambda raw, connection: raw.repeat(connection, b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
        "timeout",
    ),
    "a body, byte by byte": (
        lambda raw, connection: (
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
            raw.repeat(connection, b"a", SECONDS / 4),
        )[1],
        "timeout",
    ),
    "silence": (lambda raw, _: (raw.ending.wait(20), None)[1], "timeout"),
    "a header without end": (
        lambda raw, connection: (
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: "),
            raw.repeat(connection, b"a" * 2**16),
        )[1],
        "unreachable",
    ),
    "a body without end": (
        lambda raw, connection: (
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
            raw.repeat(connection, ZEROS),
        )[1],
        "unexpected_answer",
    ),
}


@pytest.mark.parametrize("name", HTTP)
def test_a_faulty_http_server_is_away(tmp_path: Path, name: str) -> None:
    """The time limit holds for the whole request, not for each byte."""
    act, code = HTTP[name]

    def answering(raw: Raw, connection: socket.socket) -> None:
        connection.recv(65536)
        act(raw, connection)

    with raw(answering) as server:
        found = failure(hook(tmp_path, f"http://127.0.0.1:{server.port}"))
    assert (found.code, found.away) == (code, True)
    assert server.sent < SENT_BYTES


@pytest.mark.parametrize("kind", ["c-store", "webhook"])
def test_a_handshake_that_does_not_end_is_left(tmp_path: Path, kind: str) -> None:
    """A record of TLS, byte by byte, by a server that never says hello."""
    pem, _ = certificate(tmp_path)
    record = b"\x16\x03\x03\x40\x00" + bytes(2**14)
    with raw(lambda raw, connection: raw.drip(connection, record)) as server:
        ca = f'tls_ca = "{pem}"'
        given = (
            pacs(tmp_path, server.port, "tls = true", ca)
            if kind == "c-store"
            else hook(tmp_path, f"https://127.0.0.1:{server.port}", ca)
        )
        assert failure(given).code == "timeout"


def test_a_connection_serves_many_results(tmp_path: Path) -> None:
    """Over TLS too, and when the server has closed it in between."""
    pem, key = certificate(tmp_path)
    for headers in ({}, {"Connection": "close"}):
        with http_peer(
            lambda _, headers=headers: (204, headers, b""), server_tls(pem, key)
        ) as peer:
            given = hook(tmp_path, peer.url, f'tls_ca = "{pem}"')
            given = given.model_copy(update={"timeout_seconds": 10.0})
            sender = open_sender(given)
            for _ in range(3):
                assert sender.send(leased(given)) is None
            sender.close()
        assert len(peer.asked) == 3


def test_an_association_over_tls_serves_many_results(tmp_path: Path) -> None:
    """Session tickets of TLS 1.3, which come unasked, do not end it."""
    pem, key = certificate(tmp_path)
    with store_peer(context=server_tls(pem, key)) as peer:
        given = pacs(tmp_path, peer.port, "tls = true", f'tls_ca = "{pem}"')
        given = given.model_copy(update={"timeout_seconds": 10.0})
        sender = open_sender(given)
        for _ in range(3):
            assert sender.send(leased(given)) is None
        sender.close()
    assert (peer.associations, len(peer.stored)) == (1, 3)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_answers_are_no_defect(tmp_path: Path, seed: int) -> None:
    """Whatever bytes come: the entity's fault, or an answer that is still valid."""
    drawn = random.Random(seed)

    def damaged(data: bytes) -> bytes:
        body = bytearray(data)
        for _ in range(drawn.choice((0, 1, 1, 2, 8))):
            body[drawn.randrange(len(body))] = drawn.choice((0, 1, 2, 0x21, 0x7F, 0x80, 0xFF))
        return bytes(body[: drawn.choice((len(body), drawn.randrange(len(body))))])

    def act(raw: Raw, connection: socket.socket) -> None:
        entity = Entity(raw, connection)
        entity.read()
        connection.sendall(damaged(accept()) if seed % 2 else accept())
        if seed % 4 == 1:
            return
        message, instance = entity.asked()
        connection.sendall(damaged(pdu(P_DATA, value(1, 3, response(message, instance)))))

    with raw(act) as server:
        given = pacs(tmp_path, server.port)
        sender = open_sender(given)
        with suppress(RetryableError, RejectedError):
            sender.send(leased(given))
        sender.close()


def test_a_queue_goes_on_after_each_fault(tmp_path: Path, caplog) -> None:
    """Two faulty associations, then one that works: the result arrives, and the log has why."""
    faults = [PACS["an acceptance, byte by byte"][0], PACS["a PDU of 4 GiB"][0]]

    def act(raw: Raw, connection: socket.socket) -> None:
        (faults.pop() if faults else responding())(raw, connection)

    with raw(act) as server:
        soon = ("first_delay_seconds = 0.05", "max_delay_seconds = 0.1")
        given = pacs(tmp_path, server.port, *soon)
        outbox = Outbox(f"sqlite:///{tmp_path}/outbox.sqlite")
        outbox.put("1.2", "m/1.0.0", "{}", [Entry(given.name, payload(given, RESULT))])
        deliveries = Deliveries(outbox, (given,), lambda *_: None)
        deliveries.start()
        deadline = time.monotonic() + 30
        while outbox.deliveries()[0].state != "delivered" and time.monotonic() < deadline:
            time.sleep(0.05)
        deliveries.close(10)
        (delivery,) = outbox.deliveries()
        outbox.close()
    assert delivery.state == "delivered"
    assert delivery.attempts >= 3  # more if the server is still busy with the last fault
    assert "destination here is away: an answer of more than 1048576 bytes" in caplog.text
