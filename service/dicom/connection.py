"""Sockets that give pynetdicom one checked PDU after the other, within limits of bytes and time."""

from __future__ import annotations

import select
import socket
import ssl
import time
from dataclasses import dataclass

from service.dicom.inbound import Inbound
from service.dicom.pdu import HEADER, MAX_PDU_BYTES, NOTHING, PDU_TYPES, PduError

# pynetdicom aborts the association when it reads a PDU of an unknown type (PS3.8 9.2, AA-1, AA-8)
UNRECOGNISED = HEADER.pack(0xFF, 0)
# pynetdicom's timers take a connection for idle on which it reads nothing for long
LONGEST_SILENCE_SECONDS = 1.0
# pynetdicom sends no answer while it reads, so it waits no longer for bytes that may not come
NEXT_PDU_MILLISECONDS = 10


@dataclass(frozen=True)
class TimeLimits:
    """In seconds."""

    request: float  # from the connection to the last byte of the association request
    pdu: float  # from the first byte of a PDU to its last; for a peer that reads no answer
    data_set: float  # from the first byte of a data set to its last


class Connection(socket.socket):
    """A TCP connection of one association.

    `recv` gives bytes of one PDU, which has been read whole and followed. At one that violates the
    protocol or its limits it gives an unrecognised PDU, and then the end of the stream.
    """

    inbound: Inbound | None = None  # None: bytes are passed on as they are, as for a handshake
    limits: TimeLimits
    since: float  # when the connection was ready for the association request
    _left: memoryview = memoryview(b"")
    _buffer: memoryview = memoryview(b"")
    _ended = False

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Up to `buflen` bytes of one PDU; b"" at the end.

        Raises:
            OSError: The connection is lost or was too slow.
        """
        if self.inbound is None:
            return super().recv(buflen, flags)
        if not self._left and not self._ended:
            self._left = memoryview(self._next(self.inbound))
        part, self._left = self._left[:buflen], self._left[buflen:]
        return bytes(part)

    def shutdown(self, how: int, /) -> None:
        """As in `socket`; pynetdicom would not close one whose peer has closed it before."""
        try:
            super().shutdown(how)
        except OSError:
            self.close()

    def _next(self, inbound: Inbound) -> bytes:
        """The next PDU for pynetdicom; b"" at the end."""
        silent_until = time.monotonic() + LONGEST_SILENCE_SECONDS
        try:
            left = self._one(inbound)
            while not left and time.monotonic() < silent_until and self._is_readable():
                left = self._one(inbound)
        except PduError as error:
            inbound.broken(str(error))
            self._ended = True
            return UNRECOGNISED
        finally:
            self.settimeout(self.limits.pdu)  # of answers that are sent
        return left or (b"" if self._ended else NOTHING)

    def _one(self, inbound: Inbound) -> bytes:
        """Read and follow one PDU; what is left of it for pynetdicom."""
        deadline = self._deadline(inbound)
        if not self._buffer:
            self._buffer = memoryview(bytearray(HEADER.size + MAX_PDU_BYTES))
        if not self._fill(self._buffer[: HEADER.size], deadline):
            self._ended = True
            return b""
        kind, length = HEADER.unpack_from(self._buffer)
        if kind not in PDU_TYPES or length > MAX_PDU_BYTES:
            raise PduError("a PDU of an unknown type, or larger than announced")
        pdu = self._buffer[: HEADER.size + length]
        if not self._fill(pdu[HEADER.size :], deadline):
            raise ConnectionResetError
        return inbound.keep(pdu)

    def _deadline(self, inbound: Inbound) -> float:
        """When the next PDU must be whole."""
        deadline = time.monotonic() + self.limits.pdu
        if inbound.request is None:
            deadline = min(deadline, self.since + self.limits.request)
        incoming = inbound.incoming
        if incoming is not None and not incoming.whole:
            deadline = min(deadline, incoming.since + self.limits.data_set)
        return deadline

    def _is_readable(self) -> bool:
        """Whether there are bytes, or come in an instant; not at the end of the stream."""
        if self._ended:
            return False
        poll = select.poll()
        try:
            poll.register(self, select.POLLIN)
            return bool(poll.poll(NEXT_PDU_MILLISECONDS))
        except ValueError:  # closed by another thread, which pynetdicom finds as well
            return False

    def _fill(self, view: memoryview, deadline: float) -> bool:
        """Fill a buffer; False if the connection ended before."""
        filled = 0
        while filled < len(view):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.settimeout(left)
            count = self.recv_into(view[filled:])
            if not count:
                return False
            filled += count
        return True


class TlsConnection(Connection, ssl.SSLSocket):
    """The same, with TLS."""

    def _is_readable(self) -> bool:
        return self.pending() > 0 or super()._is_readable()
