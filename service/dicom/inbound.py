"""The messages of one association as they arrive, within limits; nothing here decodes them.

pynetdicom reads a PDU of any declared length into memory, a message of any number of PDUs, and
copies each byte seven times. So data sets are collected here, within the byte budget of the
service; pynetdicom gets the commands, and an empty data set with each. Bytes that do not fit are
dropped, and the peer gets a status instead of a broken connection. Requests that pynetdicom would
not answer as the Standard says are answered here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from service.dicom.account import Account
from service.dicom.association_request import (
    AssociationRequest,
    MalformedRequestError,
    check_request,
)
from service.dicom.commands import C_CANCEL, Command, Refusal
from service.dicom.observers import Faults
from service.dicom.pdu import (
    ASSOCIATE_RQ,
    COMMAND,
    HEADER,
    ITEM,
    LAST,
    NOTHING,
    P_DATA_TF,
    PduError,
    presentation_data_values,
)
from service.dicom.statuses import TOO_LARGE
from service.uploads.budget import ServiceFullError

MAX_COMMAND_BYTES = 2**14  # the Standard's largest command set has some hundred bytes
# A peer waits for the answer to each request, because no asynchronous operations window is
# negotiated (PS3.7 D.3.3.3); a few that do not are served all the same
MAX_UNANSWERED = 8
# Left free before a data set for what makes it a file: its five UIDs have 64 bytes each at most
PREFIX_BYTES = 1024


@dataclass(frozen=True)
class Link:
    """pynetdicom's side of an association."""

    # Abstract syntaxes by the numbers of accepted presentation contexts
    contexts: Callable[[], Mapping[int, str]]
    send: Callable[[int, bytes], object]  # a command set, in a presentation context


class Message(NamedTuple):
    """A request."""

    context: int
    command: Command
    refusal: Refusal | None


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


class Inbound:
    """Follows the messages of one association.

    It is called by the thread that reads the connection, but for `answered` and `end`.

    Args:
        account: For the bytes of data sets.
        max_object_bytes: The largest data set.
        refuses: Whether an image that begins to arrive now would be refused.
        faults: Told what the peer does wrong.
    """

    def __init__(
        self,
        account: Account,
        max_object_bytes: int,
        refuses: Callable[[], bool],
        faults: Faults,
    ) -> None:
        self._account = account
        self._max_object_bytes = max_object_bytes
        self._refuses = refuses
        self._faults = faults
        self._command = bytearray()  # that arrives
        self._context = 0  # of the command that arrives
        self._message: Message | None = None  # whose data set is to follow, or arrives
        # Requests, and answers of pynetdicom and of this, each counted by one thread
        self._asked = self._told = self._refused = 0
        self.incoming: Incoming | None = None  # the data set that arrives, or waits for its answer
        self.request: AssociationRequest | None = None
        self.is_accepted = False  # the association; set before the peer is told
        self.link: Link | None = None

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or waits for its answer."""
        open_requests = self._asked - self._told - self._refused
        return bool(self.incoming or self._message or open_requests > 0 or self._command)

    @property
    def title(self) -> str:
        """The AE title that the peer claims; empty: none yet, or none that is valid."""
        return self.request.calling if self.request else ""

    def keep(self, pdu: memoryview) -> bytes:
        """Follow a whole PDU, and keep its part of a data set.

        Returns:
            What is left of it for pynetdicom, which learns of a data set when it is whole; b"" if
            there is nothing, so that the next PDU can be read.

        Raises:
            PduError: See there.
        """
        if pdu[0] == ASSOCIATE_RQ:
            return self._ask(bytes(pdu))
        if pdu[0] != P_DATA_TF:
            return bytes(pdu)
        refused = self._refused
        left = b"".join(self._keep(pdu, *each) for each in presentation_data_values(pdu))
        if left:
            return HEADER.pack(P_DATA_TF, len(left)) + left
        return NOTHING if self._refused > refused else b""  # pynetdicom sends what waits

    def broken(self, reason: str) -> None:
        """The association is about to be aborted, because the peer violates the protocol."""
        if self.is_accepted:  # otherwise any peer could fill the log
            self._faults.aborted(self.title, reason)

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

    def _ask(self, pdu: bytes) -> bytes:
        if self.request is not None:
            raise PduError("a second association request")
        try:
            self.request, readable = check_request(pdu)
        except MalformedRequestError as error:
            self._faults.malformed(error.title)
            raise
        return readable

    def _keep(self, pdu: memoryview, start: int, end: int) -> bytes:
        """Follow one presentation data value; what is left of it for pynetdicom."""
        _, context, control = ITEM.unpack_from(pdu, start)
        part, is_last = pdu[start + ITEM.size : end], bool(control & LAST)
        if not control & COMMAND:
            return self._data(context, part, is_last)
        self._command_part(context, part)
        return self._command_end(context) if is_last else b""

    def _command_part(self, context: int, part: memoryview) -> None:
        if self._message is not None:
            raise PduError("a command in place of a data set")
        if self._command and context != self._context:
            raise PduError("a command in two presentation contexts")
        self._context = context
        self._command += part
        if len(self._command) > MAX_COMMAND_BYTES:
            raise PduError("a command set that is too large")

    def _command_end(self, context: int) -> bytes:
        command = Command.parse(bytes(self._command))
        self._command.clear()
        contexts = self.link.contexts() if self.link is not None else {}
        if context not in contexts:
            raise PduError("a presentation context that was not accepted")
        if command.field == C_CANCEL:  # it has no answer, and nothing can be cancelled
            return b""
        self._asked += 1
        if self._asked - self._told - self._refused > MAX_UNANSWERED:
            raise PduError("too many requests without waiting for answers")
        message = Message(context, command, command.refusal(contexts[context]))
        if command.has_data_set:
            self._message = message
        if message.refusal is None:
            encoded = command.encoded()
            return ITEM.pack(len(encoded) + 2, context, COMMAND | LAST) + encoded
        if not command.has_data_set:
            self._refuse(message, message.refusal)
        return b""

    def _refuse(self, message: Message, refusal: Refusal) -> None:
        """Answer a request that has arrived whole, and of which pynetdicom knows nothing."""
        assert self.link is not None
        self._faults.refused(self.title, refusal)
        self._refused += 1
        self.link.send(message.context, message.command.answer(refusal))

    def _data(self, context: int, part: memoryview, is_last: bool) -> bytes:
        message = self._message
        if message is None:
            raise PduError("a data set without a command")
        if context != message.context:
            raise PduError("a data set in another presentation context than its command")
        if self.incoming is not None and self.incoming.whole:
            raise PduError("a second data set before the first is answered")
        self._collect(part, message.refusal)
        if not is_last:
            return b""
        self._message = None
        if message.refusal is not None:
            self.end()
            self._refuse(message, message.refusal)
            return b""
        assert self.incoming is not None
        self.incoming.whole = True
        return ITEM.pack(2, context, LAST)

    def _collect(self, part: memoryview, refusal: Refusal | None) -> None:
        if self.incoming is None:
            dropped = "queue_full" if self._refuses() else None
            self.incoming = Incoming(refusal=refusal.reason if refusal else dropped)
        incoming = self.incoming
        incoming.received += len(part)
        if incoming.refusal is None:
            incoming.refusal = self._refusal(incoming.received)
            if incoming.refusal is None:
                incoming.data += part
            else:
                incoming.data = bytearray()

    def _refusal(self, received: int) -> str | None:
        if received > self._max_object_bytes:
            return TOO_LARGE
        return None if self._account.cover(received) else ServiceFullError.code
