"""The messages of one association: what is kept, what is dropped, what ends the association."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from dicom_peer import (
    CR,
    ECHO,
    P_DATA,
    VERIFICATION,
    association,
    command,
    pdu,
    store_command,
    value,
)

from service.dicom.account import MAX_STEP_BYTES, RESERVED_STEP_BYTES, Account
from service.dicom.inbound import MAX_COMMAND_BYTES, MAX_UNANSWERED, Inbound, Link
from service.dicom.observers import Counts, Faults, Records
from service.dicom.pdu import PduError
from service.uploads.budget import ByteBudget

LIMIT = 100
STORE = store_command(CR, "1.2.3")
COMMAND = value(1, 3, STORE)
NO_DATA_SET = STORE.replace(b"\0\x08\2\0\0\0\1\0", b"\0\x08\2\0\0\0\1\1")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in its thread, as that of the service."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(2 * RESERVED_STEP_BYTES)


@pytest.fixture
def sent() -> list[tuple[int, bytes]]:
    """Answers that do not come from pynetdicom: presentation context and command set."""
    return []


def following(account: Account, refuses: bool, sent: list[tuple[int, bytes]]) -> Inbound:
    faults = Faults(
        "192.0.2.1",
        Counts(lambda *_: None, lambda _: None),
        Records(lambda *_: None, lambda *_: None),
    )
    found = Inbound(account, LIMIT, lambda: refuses, faults)
    contexts = {1: CR, 3: VERIFICATION}
    found.link = Link(lambda: contexts, lambda context, data: sent.append((context, data)))
    return found


@pytest.fixture
def inbound(loop, budget, sent) -> Inbound:
    return following(Account(budget, "interactive", 0.05, loop), False, sent)


def reserved(budget: ByteBudget, loop: asyncio.AbstractEventLoop) -> int:
    """Once the loop has done all that it was told."""

    async def now() -> int:
        return budget.reserved

    return asyncio.run_coroutine_threadsafe(now(), loop).result()


def keep(inbound: Inbound, *values: bytes) -> bytes:
    return inbound.keep(memoryview(pdu(P_DATA, b"".join(values))))


def test_a_data_set_is_collected_from_any_fragments(inbound, budget, loop):
    """Pynetdicom gets the command and learns when the data set is whole; a file needs no copy."""
    assert keep(inbound, COMMAND, value(1, 0, b"ab"), value(1, 0, b"")) == pdu(P_DATA, COMMAND)
    assert keep(inbound, value(1, 0, b"c")) == b""
    assert keep(inbound, value(1, 2, b"d")) == pdu(P_DATA, value(1, 2, b""))
    assert inbound.incoming is not None
    assert bytes(inbound.incoming.part_10(b"head")) == b"headabcd"
    assert reserved(budget, loop) == RESERVED_STEP_BYTES
    inbound.answered(is_store=True)
    assert reserved(budget, loop) == 0
    assert not inbound.busy


def test_other_pdus_pass_unchanged(inbound):
    """Only messages are followed."""
    release = pdu(5, bytes(4))
    assert inbound.keep(memoryview(release)) == release
    assert keep(inbound, value(3, 3, ECHO)) == pdu(P_DATA, value(3, 3, ECHO))


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT])
def test_an_object_beyond_the_limit_is_dropped_and_the_next_is_not(inbound, size):
    """Its sender gets a status, and may go on."""
    keep(inbound, COMMAND)
    for _ in range(size):
        keep(inbound, value(1, 0, b"x"))
    keep(inbound, value(1, 2, b""))
    assert inbound.incoming.whole
    assert inbound.incoming.refusal == "object_too_large"
    assert not inbound.incoming.data
    inbound.answered(is_store=True)
    keep(inbound, COMMAND, value(1, 2, bytes(LIMIT)))
    assert inbound.incoming.refusal is None


def test_an_object_that_does_not_fit_the_budget_is_dropped(inbound, budget, loop):
    """Bytes of other uploads are waited for, but not for long."""
    loop.call_soon_threadsafe(budget.take, "interactive", budget.limit)
    keep(inbound, COMMAND, value(1, 2, b"x"))
    assert inbound.incoming.refusal == "service_full"
    inbound.end()
    assert reserved(budget, loop) == budget.limit


def test_a_large_object_asks_seldom_for_bytes(loop):
    """Each time a thread waits for the event loop; bytes beyond the object are few."""
    budget = ByteBudget(2**28)
    account = Account(budget, "interactive", 0.05, loop)
    steps = set()
    for count in range(0, 13 * 2**20, 2**18):
        assert account.cover(count)
        steps.add(reserved(budget, loop))
    assert len(steps) - 1 == 6
    assert max(steps) <= 13 * 2**20 + MAX_STEP_BYTES
    account.release(0)
    assert reserved(budget, loop) == 0


def test_an_object_as_large_as_the_budget_fits(loop):
    """What is reserved ahead never exceeds it."""
    budget = ByteBudget(10 * 2**20 + 5)
    account = Account(budget, "interactive", 0.05, loop)
    assert all(account.cover(count) for count in range(0, budget.limit, 2**18))
    assert account.cover(budget.limit)
    assert not account.cover(budget.limit + 1)
    account.release(0)
    assert reserved(budget, loop) == 0


def test_an_object_that_would_be_refused_anyway_is_not_kept(loop, budget):
    """Its bytes are read, because no answer may come before their end, but take no memory."""
    inbound = following(Account(budget, "interactive", 0.05, loop), True, [])
    keep(inbound, COMMAND, value(1, 2, b"x"))
    assert inbound.incoming.refusal == "queue_full"
    assert reserved(budget, loop) == 0


@pytest.mark.parametrize(
    "values",
    [
        [value(1, 2, b"x")],
        [value(1, 1, b"half a command"), value(1, 2, b"x")],
        [COMMAND, value(1, 0, b"x"), COMMAND],
        [COMMAND, value(1, 2, b"x"), value(1, 2, b"x")],
        [COMMAND, value(1, 2, b"x"), COMMAND, value(1, 0, b"x")],
        [value(1, 1, bytes(MAX_COMMAND_BYTES)), value(1, 1, b"x")],
        [value(3, 3, ECHO)] * (MAX_UNANSWERED + 1),
        [COMMAND, value(3, 2, b"x")],
        [COMMAND, COMMAND],
        [value(1, 1, STORE[:20]), value(3, 3, STORE[20:])],
        [value(5, 3, STORE)],
        [value(1, 3, NO_DATA_SET), value(1, 2, b"x")],
        [value(1, 3, STORE[:-1])],
        [value(1, 3, STORE + STORE)],
        [value(1, 3, b"\x08" + STORE[1:])],
        [value(1, 3, b"")],
        [value(1, 3, command(MessageID=1, CommandDataSetType=0x101))],
        [value(1, 3, command(CommandField=0x1234, MessageID=1, CommandDataSetType=0x101))],
        [value(1, 3, command(CommandField=1, CommandDataSetType=0x101))],
        [value(1, 3, command(CommandField=1, MessageID=1))],
        [value(1, 3, command(CommandField=0x8001, MessageIDBeingRespondedTo=1, Status=0))],
        [value(3, 3, ECHO.replace(b"\1\1", b"\1\0"))],
        [b"\0\0\0\1\1"],
        [b"\0\0\0\0\1\3"],
        [b"\0\0\0\x09\1\3short"],
        [b"\xff\xff\xff\xff\1\3"],
        [COMMAND, b"\0\0"],
    ],
    ids=[
        "data without command",
        "data in a command",
        "command in data",
        "data twice",
        "second object unanswered",
        "endless command",
        "never waits",
        "data in another context",
        "command without its data",
        "command in two contexts",
        "unknown context",
        "data that the command denies",
        "cut command",
        "repeated elements",
        "element of another group",
        "empty command",
        "no Command Field",
        "unknown command",
        "no Message ID",
        "no Command Data Set Type",
        "response",
        "C-ECHO with data",
        "no control header",
        "length of zero",
        "longer than the PDU",
        "longest",
        "cut header",
    ],
)
def test_what_breaks_the_protocol_ends_the_association(inbound, values):
    """So that no bytes are taken for those of another message."""
    with pytest.raises(PduError):
        keep(inbound, *values)


def test_a_refused_request_is_answered_when_it_has_arrived(inbound, sent, budget, loop):
    """Its bytes are dropped, pynetdicom gets nothing, and the next request is served."""
    wrong = value(1, 3, store_command(CR, "no UID", message=5))
    assert keep(inbound, wrong, value(1, 0, b"ab")) == b""
    assert not sent
    assert inbound.busy
    assert keep(inbound, value(1, 2, b"c")) == pdu(P_DATA, b"")
    answer = command(
        AffectedSOPClassUID=CR,
        CommandField=0x8001,
        MessageIDBeingRespondedTo=5,
        CommandDataSetType=0x101,
        Status=0x117,
        ErrorComment="not_an_instance ",
    )
    assert sent == [(1, answer)]
    assert not inbound.busy
    assert reserved(budget, loop) == 0
    assert keep(inbound, COMMAND, value(1, 2, b"d")) == pdu(P_DATA, COMMAND + value(1, 2, b""))
    assert inbound.incoming.refusal is None


def test_a_refused_request_does_not_end_the_object_before_it(inbound, sent, budget, loop):
    """A peer that does not wait for the answer keeps the bytes that it still needs."""
    keep(inbound, COMMAND, value(1, 2, b"d"))
    assert keep(inbound, value(3, 3, NO_DATA_SET)) == pdu(P_DATA, b"")
    assert len(sent) == 1
    assert bytes(inbound.incoming.part_10(b"")) == b"d"
    assert reserved(budget, loop) == RESERVED_STEP_BYTES


def test_commands_are_put_together_and_hold_what_was_checked(inbound):
    """Pynetdicom gets no element that it could refuse."""
    parts = [
        value(1, 2 * (at == len(STORE) - 1) + 1, STORE[at : at + 1]) for at in range(len(STORE))
    ]
    assert keep(inbound, *parts) == pdu(P_DATA, COMMAND)
    keep(inbound, value(1, 2, b"x"))
    inbound.answered(is_store=True)
    odd = command(
        AffectedSOPClassUID=CR,
        CommandField=1,
        MessageID=1,
        Priority=77,
        CommandDataSetType=0,
        AffectedSOPInstanceUID="1.2.3",
        MoveOriginatorApplicationEntityTitle="\\" * 40,
        MoveOriginatorMessageID=1,
    )
    assert keep(inbound, value(1, 3, odd)) == pdu(P_DATA, COMMAND)


def test_there_is_nothing_to_cancel(inbound, sent):
    """C-CANCEL has no answer."""
    cancel = command(CommandField=0xFFF, MessageIDBeingRespondedTo=1, CommandDataSetType=0x101)
    assert keep(inbound, *[value(1, 3, cancel)] * 100) == b""
    assert not sent
    assert not inbound.busy


def test_a_second_association_request_ends_the_association(inbound):
    """It could change what the first was accepted for."""
    request = association([(1, CR, ["1.2.840.10008.1.2"])])
    assert inbound.keep(memoryview(request)) == request
    with pytest.raises(PduError):
        inbound.keep(memoryview(request))


def test_the_end_of_an_association_frees_what_had_arrived(inbound, budget, loop):
    """Also in the middle of an object."""
    keep(inbound, COMMAND, value(1, 0, b"x"))
    assert inbound.busy
    inbound.end()
    inbound.end()
    assert reserved(budget, loop) == 0
