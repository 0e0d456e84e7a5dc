"""The messages of one association as they arrive, within limits; nothing here decodes them.

pynetdicom reads a PDU of any declared length into memory, and a message of any number of PDUs. So
its bytes are followed here first. They are counted in the byte budget of the service, and dropped
where they do not fit; the peer then gets a status instead of a broken connection.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

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
RESERVED_STEP_BYTES = 2**20  # reserved at a time, because threads ask the event loop for them

HEADER = struct.Struct(">BxL")  # type, length
ITEM = struct.Struct(">LBB")  # length, presentation context, message control header
COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)


class PduError(Exception):
    """The peer violates the protocol, so that the association must be aborted."""


@dataclass
class Incoming:
    """The data set of one message."""

    received: int = 0  # bytes
    whole: bool = False
    refusal: str | None = None  # the code of the reason why bytes were dropped
    since: float = 0.0  # by `time.monotonic`


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
            step = max(RESERVED_STEP_BYTES, count - self._reserved)
            asked = self._budget.take_in_turn(self._lane, step, self._patience_seconds)
            taken: Future[None] = asyncio.run_coroutine_threadsafe(asked, self._loop)
            try:
                taken.result()
            except ServiceFullError:
                return False
            self._reserved += step
        return True

    def release(self, received: int) -> None:
        """Release all bytes; `received` of them had arrived."""
        count, self._reserved = self._reserved, 0
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
        self._unanswered = 0
        self.incoming: Incoming | None = None  # the data set that arrives, or waits for its answer

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or waits for its answer."""
        return bool(self.incoming or self._unanswered or self._command_bytes)

    def keep(self, pdu: bytearray) -> bytes | bytearray:
        """Follow a whole PDU; returns it, or one without the bytes that must not be kept.

        Raises:
            PduError: See there.
        """
        if pdu[0] != P_DATA_TF:
            return pdu
        items = [(start, end, self._keeps(pdu, start, end)) for start, end in _items(pdu)]
        return pdu if all(kept for _, __, kept in items) else _without(pdu, items)

    def answered(self, is_store: bool) -> None:
        """An answer is about to be sent; to C-STORE, it ends the data set."""
        self._unanswered = max(self._unanswered - 1, 0)
        if is_store:
            self.end()

    def end(self) -> None:
        """Release the bytes; also at the end of the association."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            self._account.release(incoming.received)

    def _keeps(self, pdu: bytearray, start: int, end: int) -> bool:
        """Follow one presentation data value; False if its bytes must be dropped."""
        _, __, control = ITEM.unpack_from(pdu, start)
        count, is_last = end - start - ITEM.size, bool(control & LAST)
        if control & COMMAND:
            self._command(count, is_last)
            return True
        return self._data(count, is_last)

    def _command(self, count: int, is_last: bool) -> None:
        if self.incoming is not None and not self.incoming.whole:
            raise PduError("a command within a data set")
        self._command_bytes += count
        self._has_command = is_last
        if self._command_bytes > MAX_COMMAND_BYTES:
            raise PduError("the command set is too large")
        if is_last:
            self._command_bytes = 0
            self._unanswered += 1
            if self._unanswered > MAX_UNANSWERED:
                raise PduError("the peer does not wait for answers")

    def _data(self, count: int, is_last: bool) -> bool:
        """Follow bytes of a data set; False if they must be dropped."""
        if not self._has_command:
            raise PduError("a data set without a command")
        if self.incoming is None:
            refusal = "queue_full" if self._refuses() else None
            self.incoming = Incoming(refusal=refusal, since=time.monotonic())
        incoming = self.incoming
        if incoming.whole:
            raise PduError("a second data set before the first is answered")
        incoming.received += count
        if incoming.refusal is None and incoming.received > self._max_object_bytes:
            incoming.refusal = TOO_LARGE
        elif incoming.refusal is None and not self._account.cover(incoming.received):
            incoming.refusal = ServiceFullError.code
        if is_last:
            incoming.whole, self._has_command = True, False
        return incoming.refusal is None


def _items(pdu: bytearray) -> Iterator[tuple[int, int]]:
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


def _without(pdu: bytearray, items: list[tuple[int, int, bool]]) -> bytes:
    """The PDU with empty values where bytes are dropped, so that pynetdicom sees the last one."""
    body = b"".join(
        bytes(pdu[start:end]) if kept else ITEM.pack(2, pdu[start + 4], pdu[start + 5])
        for start, end, kept in items
    )
    return HEADER.pack(P_DATA_TF, len(body)) + body
