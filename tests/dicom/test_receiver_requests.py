"""Requests that break the protocol: each is answered at once, and has a line of the log."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from dicom_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    CR,
    ECHO,
    EXPLICIT,
    P_DATA,
    RELEASE_RP,
    VERIFICATION,
    Peer,
    association,
    command,
    item,
    pdu,
    peer,
    results,
    store_command,
    value,
)
from live import Live
from pydicom import uid
from receiving import PATIENT, UID, receiving, stored, subjects, wait_for

from service.imaging import SUPPORTED

IMPLICIT = uid.ImplicitVRLittleEndian
CONTEXTS = ((1, CR, [EXPLICIT]), (3, VERIFICATION, [IMPLICIT]))
PROMPT_SECONDS = 8.0  # less than any limit of the receiver; a busy machine needs some
LONG = "1.2." + "3" * 77
OPERATIONS = {
    "C-GET": 0x10, "C-FIND": 0x20, "C-MOVE": 0x21, "C-ECHO": 0x30, "N-EVENT-REPORT": 0x100,
    "N-GET": 0x110, "N-SET": 0x120, "N-ACTION": 0x130, "N-CREATE": 0x140, "N-DELETE": 0x150,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("requests")


@pytest.fixture(scope="module")
def live(folder) -> Iterator[Live]:
    (folder / "key").write_bytes(bytes(32))
    audit = {"audit_log": str(folder / "audit"), "audit_key": str(folder / "key")}
    with receiving(folder, access_log="true", **audit) as service:
        yield service


@pytest.fixture
def sender(live) -> Iterator[Peer]:
    with peer(live.dicom_port) as connected:
        connected.socket.settimeout(PROMPT_SECONDS)
        assert connected.associate(*CONTEXTS)[0] == ASSOCIATE_AC
        yield connected


@pytest.fixture
def logged(live) -> Callable[[], list[str]]:
    """The new lines of the log about requests."""
    before = len(live.log.read_text())
    about = re.compile("WARNING|ERROR|Traceback|rejected")
    return lambda: [
        line for line in live.log.read_text()[before:].splitlines() if about.search(line)
    ]


@pytest.fixture
def audited(folder) -> Callable[[], list[dict]]:
    """The new lines of the audit log."""
    path = folder / "audit"
    before = len(path.read_text()) if path.exists() else 0
    return lambda: [json.loads(line) for line in path.read_text()[before:].splitlines()]


def send(sender: Peer, told: bytes, data_set: bytes | None = None, context: int = 1) -> None:
    values = value(context, 3, told)
    if data_set is not None:
        values += value(context, 2, data_set)
    sender.socket.sendall(pdu(P_DATA, values))


def ended(sender: Peer) -> bool:
    """Whether the association was aborted, and the connection closed."""
    kind, _ = sender.read()
    try:
        sender.read()
    except (EOFError, ConnectionError):
        return kind == ABORT
    return False


def store_without(*keywords: str, **others: str | int) -> bytes:
    elements = {
        "AffectedSOPClassUID": CR,
        "CommandField": 1,
        "MessageID": 9,
        "Priority": 0,
        "CommandDataSetType": 1,
        "AffectedSOPInstanceUID": f"{UID}.9",
    }
    kept = {each: elements[each] for each in elements if each not in keywords}
    return command(**kept | others)


@pytest.mark.parametrize(
    ("told", "status", "comment"),
    [
        (store_without("AffectedSOPClassUID"), 0x122, "unsupported_sop_class"),
        (store_without(AffectedSOPClassUID=""), 0x122, "unsupported_sop_class"),
        (store_without(AffectedSOPClassUID=LONG), 0x122, "unsupported_sop_class"),
        (store_without(AffectedSOPClassUID=VERIFICATION), 0x122, "unsupported_sop_class"),
        (store_without(AffectedSOPClassUID="1.2.3"), 0x122, "unsupported_sop_class"),
        (store_without("AffectedSOPInstanceUID"), 0x117, "not_an_instance"),
        (store_without(AffectedSOPInstanceUID=""), 0x117, "not_an_instance"),
        (store_without(AffectedSOPInstanceUID=LONG), 0x117, "not_an_instance"),
        (store_without(AffectedSOPInstanceUID="Doe^Jane"), 0x117, "not_an_instance"),
    ],
    ids=[
        "no class", "empty class", "long class", "class of another service", "unknown class",
        "no instance", "empty instance", "long instance", "instance that is no UID",
    ],
)  # fmt: skip
def test_a_store_request_that_names_no_object_is_refused(
    sender, logged, audited, told, status, comment
):
    """By a status, in the logs too, and the association goes on."""
    for _ in range(3):
        send(sender, told, stored(9).data_set)
        answer = sender.status()
        assert (hex(answer.Status), answer.ErrorComment) == (hex(status), comment)
        assert (answer.CommandField, answer.MessageIDBeingRespondedTo) == (0x8001, 9)
    assert sender.store(stored(10)).Status == 0
    lines = [line for line in logged() if "WARNING" in line]
    assert len(lines) == 1
    assert f"'PEER' at 127.0.0.1 is refused: {status:04X}H, C-STORE without" in lines[0]
    assert [line["code"] for line in audited() if line["event"] == "failed"] == [comment] * 3


def test_elements_that_do_not_matter_may_be_missing_or_wrong(sender):
    """Priority, and the originator of a C-MOVE."""
    sent = stored(11)
    odd = {"Priority": 9, "MoveOriginatorApplicationEntityTitle": "\\" * 40}
    send(sender, store_without(**odd, AffectedSOPInstanceUID=sent.instance), sent.data_set)
    assert sender.status().Status == 0
    told = store_without("Priority", AffectedSOPInstanceUID=sent.instance)
    send(sender, told, sent.data_set)
    assert sender.status().Status == 0


def test_leading_zeros_in_a_uid_are_accepted(live, folder, sender):
    """PS3.5 9.1 forbids them, and archives hold them."""
    sent = stored("1.02.3")
    assert sent.instance.endswith(".02.3")
    assert sender.store(sent).Status == 0
    wait_for(lambda: sent.instance in subjects(folder))


@pytest.mark.parametrize(
    ("operation", "has_data_set"),
    [("C-ECHO", False), *product(sorted(set(OPERATIONS) - {"C-ECHO"}), [False, True])],
)
def test_another_operation_is_not_recognised(sender, logged, operation, has_data_set):
    """0211H, whatever its SOP class is; a modality may ask a storage provider anything."""
    field = OPERATIONS[operation]
    told = command(
        AffectedSOPClassUID=VERIFICATION if field == 0x30 else CR,
        CommandField=field,
        MessageID=21,
        CommandDataSetType=1 if has_data_set else 0x101,
        AffectedSOPInstanceUID="1.2.3",
    )
    send(sender, told, b"some data set" if has_data_set else None)
    answer = sender.status()
    assert (hex(answer.Status), answer.MessageIDBeingRespondedTo) == ("0x211", 21)
    assert answer.CommandField == field | 0x8000
    assert sender.echo(context=3) == 0
    (line,) = logged()
    assert "'PEER' at 127.0.0.1 is refused: 0211H, " + operation in line


def test_each_class_is_served_in_its_presentation_context(sender):
    """No C-STORE in that of Verification, and no C-ECHO of another class."""
    for sop_class in (CR, VERIFICATION):
        send(sender, store_command(sop_class, "1.2.3"), b"x", context=3)
        assert sender.status().Status == 0x122
    send(sender, ECHO.replace(VERIFICATION.encode(), b"1.2.840.10008.1.9"), context=3)
    assert sender.status().Status == 0x122
    assert sender.echo(context=3) == 0


def test_an_answer_fits_the_pdus_of_the_peer(live):
    """In as many as it takes."""
    with peer(live.dicom_port) as sender:
        assert sender.associate(*CONTEXTS, max_pdu=40)[0] == ASSOCIATE_AC
        send(sender, store_without("AffectedSOPInstanceUID"), b"x")
        control, told = 0, b""
        while control != 3:
            kind, body = sender.read()
            assert (kind, len(body) <= 40) == (P_DATA, True)
            control, told = body[5], told + body[6:]
        assert struct.pack("<HHLH", 0, 0x900, 2, 0x117) in told


CANCEL = command(CommandField=0xFFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x101)


@pytest.mark.parametrize(
    "more",
    [
        pdu(P_DATA, value(1, 3, CANCEL)),
        pdu(P_DATA, value(1, 1, CANCEL[:20])) + pdu(P_DATA, value(1, 3, CANCEL[20:])),
        pdu(P_DATA, b"") * 3,
        pdu(P_DATA, value(1, 1, store_without()[:20])),
    ],
    ids=["C-CANCEL", "C-CANCEL in two", "nothing", "a part of a command"],
)
def test_what_follows_an_object_does_not_delay_its_answer(sender, more):
    """Bytes that pynetdicom does not get keep it from nothing that it has got."""
    sent = stored(30)
    sender.socket.sendall(sent.message() + more)
    assert sender.status().Status == 0
    assert sender.release() == RELEASE_RP


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (value(1, 3, store_without("MessageID")), "C-STORE without Message ID"),
        (value(1, 3, store_without("CommandField")), "an unknown command"),
        (
            value(1, 3, store_without("CommandDataSetType")),
            "C-STORE without Command Data Set Type",
        ),
        (value(1, 3, store_without(CommandField=0x8001)), "a response without a request"),
        (value(1, 3, store_without()[:-1]), "a damaged command set"),
        (value(5, 3, store_without()), "a presentation context that was not accepted"),
        (value(7, 3, store_without()), "a presentation context that was not accepted"),
        (
            value(1, 3, store_without()) + value(5, 2, b"x"),
            "a data set in another presentation context than its command",
        ),
        (
            value(1, 3, store_without()) + value(99, 2, b"x"),
            "a data set in another presentation context than its command",
        ),
        (value(1, 3, store_without()) * 2, "a command in place of a data set"),
        (value(1, 2, b"x"), "a data set without a command"),
        (b"\0\0\0\1\1", "a cut presentation data value"),
    ],
)
def test_what_cannot_be_answered_is_aborted(live, logged, values, reason):
    """At once, with the reason in the log; 5 was rejected, 7 and 99 were not asked for."""
    with peer(live.dicom_port) as sender:
        sender.socket.settimeout(PROMPT_SECONDS)
        sender.associate(*CONTEXTS, (5, uid.CTImageStorage, [EXPLICIT]))
        sender.socket.sendall(pdu(P_DATA, values))
        assert ended(sender)
    (line,) = logged()
    assert f"the association of 'PEER' at 127.0.0.1 is aborted: {reason}" in line


@pytest.mark.parametrize(
    ("asked", "answer", "reason"),
    [
        (association(CONTEXTS, application="1.2.3"), (1, 1, 2), "application_context"),
        (association(CONTEXTS, version=2), (1, 2, 2), "protocol_version"),
        (association(CONTEXTS, called=""), (1, 1, 7), "called_ae"),
        (association(CONTEXTS, called="A\\B"), (1, 1, 7), "called_ae"),
        (association(CONTEXTS, calling=""), (1, 1, 3), "calling_ae"),
        (association(CONTEXTS, calling="PEER\0\0"), (1, 1, 3), "calling_ae"),
        (association(CONTEXTS, calling="", called=""), (1, 1, 7), "called_ae"),
    ],
)
def test_an_association_that_nothing_may_ask_for_is_rejected(
    live, logged, audited, asked, answer, reason
):
    """With the reason of the Standard (PS3.8 9.3.4), and a line in both logs."""
    with peer(live.dicom_port) as sender:
        sender.socket.settimeout(PROMPT_SECONDS)
        sender.socket.sendall(asked)
        kind, body = sender.read()
        assert (kind, tuple(body[1:])) == (ASSOCIATE_RJ, answer)
    wait_for(lambda: [line for line in logged() if f"is rejected: {reason}" in line])


def test_other_bits_of_the_version_do_not_matter(live):
    """PS3.8 9.3.2: only bit 0 is tested."""
    with peer(live.dicom_port) as sender:
        assert sender.associate(*CONTEXTS, version=3)[0] == ASSOCIATE_AC


VERIFY = (1, VERIFICATION, [IMPLICIT])
WITHOUT_USER = association([VERIFY])[
    : -len(item(0x50, item(0x51, bytes(4)) + item(0x52, bytes(7))))
]


def ending(asked: bytes, more: bytes) -> bytes:
    """The request with more items at its end."""
    return pdu(ASSOCIATE_RQ, asked[6:] + more)


# A presentation context with sub-items of unknown types before, between and after its own
ODD_CONTEXT = bytes([5, 0, 0, 0]) + b"".join(
    item(kind, value.encode())
    for kind, value in ((0x31, ""), (0x30, VERIFICATION), (0x50, "x"), (0x40, IMPLICIT), (1, "y"))
)
# As many as there can be, and what a toolkit may say of each (PS3.7 D.3.3.4 to D.3.3.6)
MANY = [(number, CR, sorted(SUPPORTED)[:14]) for number in range(3, 256, 2)]
UID_FIELD = struct.pack(">H", len(CR)) + CR.encode()
EXTENDED = (
    item(0x54, UID_FIELD + b"\1\1")
    + item(0x56, UID_FIELD + bytes(6))
    + item(0x57, UID_FIELD + struct.pack(">H", 17) + b"1.2.840.10008.4.2" + bytes(2))
) * 127


@pytest.mark.parametrize(
    "asked",
    [
        *(association([VERIFY], more=item(kind, b"x")) for kind in (1, 0x5A, 0x60, 0x7F, 0x99)),
        association([VERIFY], more=item(0x5A, b"") + item(0x55, b"VERSION")),
        ending(association([VERIFY]), item(0x99, b"x")),
        ending(association([VERIFY]), item(0x51, b"x") + item(0, b"")),
        ending(association([VERIFY]), item(0x20, ODD_CONTEXT)),
        association([VERIFY], more=item(0x54, struct.pack(">H", 80) + b"1." * 40 + b"\1\1")),
        association([VERIFY], more=item(0x58, b"\x63\0\0\1x\0\0")),
        association([VERIFY], more=item(0x53, bytes([0, 5, 0, 5]))),
        association([VERIFY, *MANY], more=EXTENDED),
    ],
    ids=[
        "01H", "5AH", "60H", "7FH", "99H", "before another", "99H of the request",
        "51H of the request", "of a presentation context", "odd role", "odd identity",
        "operations window", "all that a toolkit may say",
    ],
)  # fmt: skip
def test_items_that_do_not_matter_are_ignored(live, asked):
    """PS3.8 9.3.1 and D.2: what is not recognised, or proposed without effect, refuses nothing."""
    with peer(live.dicom_port) as sender:
        sender.socket.settimeout(PROMPT_SECONDS)
        sender.socket.sendall(asked)
        kind, body = sender.read()
        assert kind == ASSOCIATE_AC
        accepted = results(body)
        assert set(accepted.values()) == {0}
        assert len(accepted) == asked.count(item(0x30, VERIFICATION.encode())) + asked.count(
            item(0x30, CR.encode())
        )
        assert sender.echo(context=1) == 0


@pytest.mark.parametrize(
    "asked",
    [
        association([(2, VERIFICATION, [IMPLICIT])]),
        association([(0, VERIFICATION, [IMPLICIT])]),
        association([VERIFY, (3, CR, [])]),
        association([VERIFY, (3, "", [EXPLICIT])]),
        association([VERIFY, (3, LONG, [EXPLICIT])]),
        association([VERIFY, (3, CR, [LONG])]),
        association([VERIFY, VERIFY]),
        association([]),
        association([VERIFY], application=LONG),
        association([VERIFY], more=item(0x52, LONG.encode())),
        association([VERIFY], more=item(0x5A, b"cut")[:-1]),
        association([(number, VERIFICATION, ["1"] * 3000) for number in (1, 3, 5)]),
        ending(association([VERIFY]), item(0x99, bytes(2**16 - 1)) * 2),
        struct.pack(">BxL", ASSOCIATE_RQ, len(WITHOUT_USER) - 6) + WITHOUT_USER[6:],
        pdu(ASSOCIATE_RQ, association([VERIFY])[6:70]),
        pdu(ASSOCIATE_RQ, association([VERIFY])[6:-3]),
        pdu(ASSOCIATE_RQ, b""),
    ],
    ids=[
        "even context", "context 0", "no transfer syntax", "no abstract syntax",
        "long abstract syntax", "long transfer syntax", "context twice", "no context",
        "long application context", "long implementation", "cut unknown item", "many items",
        "large", "no user information", "cut in the head", "cut in an item", "empty",
    ],
)  # fmt: skip
def test_a_malformed_association_request_is_aborted(live, logged, asked):
    """At once, instead of at the limit of a request; it is counted as rejected."""
    with peer(live.dicom_port) as sender:
        sender.socket.settimeout(PROMPT_SECONDS)
        started = time.monotonic()
        sender.socket.sendall(asked)
        assert ended(sender)
        assert time.monotonic() - started < PROMPT_SECONDS
    wait_for(lambda: [line for line in logged() if "is rejected: malformed" in line])


def test_rejections_of_all_kinds_are_audited(live, folder):
    """The first of each kind has a line at once."""
    for asked in (
        association(CONTEXTS, application="1.2.3", calling="CT7"),
        association(CONTEXTS, version=0, calling="CT7"),
        association([(2, VERIFICATION, [IMPLICIT])], calling="CT7"),
    ):
        with peer(live.dicom_port) as sender:
            sender.socket.sendall(asked)
            sender.read()
    lines = [json.loads(line) for line in (folder / "audit").read_text().splitlines()]
    said = [line["code"] for line in lines if line["client"] == "ae:CT7"]
    assert said == ["application_context", "protocol_version", "malformed"]


def test_peers_that_may_not_call_fill_no_log(tmp_path):
    """What follows a request that is rejected has no line, unless associations are logged."""
    with receiving(tmp_path, dicom_callers="CT1") as service:
        for asked in (association(CONTEXTS), association([]), b""):
            with peer(service.dicom_port) as sender:
                sender.socket.sendall(asked + pdu(P_DATA, b"\0\0\0\1\1"))
                assert sender.read()[0] in (ASSOCIATE_RJ, ABORT)
        assert service.end() == 0
        assert not re.search("WARNING|ERROR|Traceback", service.log.read_text())


def test_the_log_names_no_patient(live):
    """Nor anything that peers have sent, but AE titles."""
    text = live.log.read_text()
    said = (*PATIENT.values(), UID, "Traceback", "AttributeError", LONG)
    assert not [each for each in said if each in text], text
