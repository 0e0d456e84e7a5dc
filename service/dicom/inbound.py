"""The messages of one association as they arrive, within limits; nothing here decodes them.

pynetdicom reads a PDU of any declared length into memory, a message of any number of PDUs, and
copies each byte seven times. So data sets are collected here, within the byte budget of the
service; pynetdicom gets the commands, and an empty data set with each. Bytes that do not fit are
dropped, and the peer gets a status instead of a broken connection.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from service.dicom.statuses import TOO_LARGE
from service.inference import Lane
from service.uploads.budget import ByteBudget, ServiceFullError

P_DATA_TF = 4
# Announced to peers as the largest PDU that is accepted, without its 6 bytes of header
MAX_PDU_BYTES = 2**18
MAX_COMMAND_BYTES = 2**14  # the Standard's largest command set has some hundred bytes
# A peer waits for the answer to each request, because no asynchronous operations window is
# negotiated (PS3.7 D.3.3.3); but a few messages, such as C-CANCEL, have no answer
MAX_UNANSWERED = 8
# Reserved at a time, because threads must ask the event loop: at first, and as many as there are
# already, up to the most
RESERVED_STEP_BYTES = 2**20
MAX_STEP_BYTES = 2**22

LOOP_SECONDS = 10.0  # for the event loop to come to it
# Left free before a data set for what makes it a file: its five UIDs have 64 bytes each at most
PREFIX_BYTES = 1024

HEADER = struct.Struct(">BxL")  # type, length
ITEM = struct.Struct(">LBB")  # length, presentation context, message control header
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)


class PduError(Exception):
    """The peer violates the protocol, so that the association must be aborted."""


@dataclass
class Incoming:
    """The data set of one message."""

    refusal: str | None = None  # the code of the reason why its bytes are dropped
    received: int = 0  # bytes
    whole: bool = False
    since: float = field(default_factory=time.monotonic)
    data: bytearray = field(default_factory=lambda: bytearray(PREFIX_BYTES), repr=False)

    def part_10(self, prefix: bytes) -> memoryview:
        """The data set as a file, without a copy; it can be taken once.

        Args:
            prefix: Preamble and File Meta Information, of PREFIX_BYTES at most.
        """
        data, self.data = self.data, bytearray()
        start = PREFIX_BYTES - len(prefix)
        data[start:PREFIX_BYTES] = prefix
        return memoryview(data)[start:]


class Account:
    """Bytes of the budget, which lives in the event loop, for a thread.

    Args:
        budget: Shared with all other uploads.
        lane: Of the images.
        patience_seconds: How long bytes may wait until they fit.
        loop: Of the budget.
    """

    def __init__(
        self,
        budget: ByteBudget,
        lane: Lane,
        patience_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._budget, self._lane, self._loop = budget, lane, loop
        self._patience_seconds = patience_seconds
        self._reserved = 0

    def cover(self, count: int) -> bool:
        """Reserve until `count` bytes are covered; blocks. False: they do not fit."""
        while self._reserved < count:
            step = self._step(count - self._reserved)
            asked = self._budget.take_in_turn(self._lane, step, self._patience_seconds)
            taken: Future[None] = asyncio.run_coroutine_threadsafe(asked, self._loop)
            try:
                taken.result(self._patience_seconds + LOOP_SECONDS)
            except (ServiceFullError, TimeoutError):
                taken.cancel()
                return False
            self._reserved += step
        return True

    def _step(self, needed: int) -> int:
        wanted = max(RESERVED_STEP_BYTES, min(self._reserved, MAX_STEP_BYTES))
        return max(needed, min(wanted, self._budget.limit - self._reserved))

    def release(self, received: int) -> None:
        """Release all bytes; `received` of them had arrived."""
        count, self._reserved = self._reserved, 0
        with suppress(RuntimeError):  # the loop has ended, and the process ends
            self._loop.call_soon_threadsafe(self._budget.release, count)
            self._loop.call_soon_threadsafe(self._budget.count, self._lane, received)


class Inbound:
    """Follows the messages of one association.

    It is called by the thread that reads the connection, but for `answered` and `end`.

    Args:
        account: For the bytes of data sets.
        max_object_bytes: The largest data set.
        refuses: Whether an image that begins to arrive now would be refused.
    """

    def __init__(
        self, account: Account, max_object_bytes: int, refuses: Callable[[], bool]
    ) -> None:
        self._account = account
        self._max_object_bytes = max_object_bytes
        self._refuses = refuses
        self._command_bytes = 0
        self._has_command = False  # a whole command set came last, so a data set may follow
        self._asked = self._told = 0  # requests and answers, each counted by one thread
        self.incoming: Incoming | None = None  # the data set that arrives, or waits for its answer

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or waits for its answer."""
        return bool(self.incoming or self._asked > self._told or self._command_bytes)

    def keep(self, pdu: memoryview) -> bytes:
        """Follow a whole PDU, and keep its part of a data set.

        Returns:
            What is left of it for pynetdicom, which learns of a data set when it is whole; b"" if
            there is nothing.

        Raises:
            PduError: See there.
        """
        if pdu[0] != P_DATA_TF:
            return bytes(pdu)
        left = b"".join(self._keep(pdu, start, end) for start, end in _items(pdu))
        return HEADER.pack(P_DATA_TF, len(left)) + left if left else b""

    def answered(self, is_store: bool) -> None:
        """An answer is about to be sent; to C-STORE, it ends the data set."""
        self._told += 1
        if is_store:
            self.end()

    def end(self) -> None:
        """Release the bytes; also at the end of the association."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            self._account.release(incoming.received)

    def _keep(self, pdu: memoryview, start: int, end: int) -> bytes:
        """Follow one presentation data value; what is left of it for pynetdicom."""
        _, context, control = ITEM.unpack_from(pdu, start)
        part, is_last = pdu[start + ITEM.size : end], bool(control & LAST)
        if control & COMMAND:
            self._command(len(part), is_last)
            return bytes(pdu[start:end])
        self._data(part, is_last)
        return ITEM.pack(2, context, control) if is_last else b""

    def _command(self, count: int, is_last: bool) -> None:
        if self.incoming is not None and not self.incoming.whole:
            raise PduError("a command within a data set")
        self._command_bytes += count
        self._has_command = is_last
        if self._command_bytes > MAX_COMMAND_BYTES:
            raise PduError("the command set is too large")
        if is_last:
            self._command_bytes = 0
            self._asked += 1
            if self._asked - self._told > MAX_UNANSWERED:
                raise PduError("the peer does not wait for answers")

    def _data(self, part: memoryview, is_last: bool) -> None:
        if not self._has_command:
            raise PduError("a data set without a command")
        if self.incoming is None:
            self.incoming = Incoming(refusal="queue_full" if self._refuses() else None)
        incoming = self.incoming
        if incoming.whole:
            raise PduError("a second data set before the first is answered")
        incoming.received += len(part)
        if incoming.refusal is None:
            incoming.refusal = self._refusal(incoming.received)
            if incoming.refusal is None:
                incoming.data += part
            else:
                incoming.data = bytearray()
        if is_last:
            incoming.whole, self._has_command = True, False

    def _refusal(self, received: int) -> str | None:
        if received > self._max_object_bytes:
            return TOO_LARGE
        return None if self._account.cover(received) else ServiceFullError.code


def _items(pdu: memoryview) -> Iterator[tuple[int, int]]:
    """Start and end of each presentation data value item, with its header (PS3.8 9.3.5.1)."""
    start = HEADER.size
    while start < len(pdu):
        if start + ITEM.size > len(pdu):
            raise PduError("a cut presentation data value")
        end = start + 4 + ITEM.unpack_from(pdu, start)[0]
        if not start + ITEM.size <= end <= len(pdu):
            raise PduError("a presentation data value with a wrong length")
        yield start, end
        start = end
