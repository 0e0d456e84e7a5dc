"""A TCP connection to a destination, within limits of time and of bytes."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress

from service.dicom.pdu import PduError

ANSWER_BYTES = 2**20  # an answer about one instance is far smaller


class Connection:
    """Reads and writes until a deadline, which each exchange sets anew.

    Args:
        host: Of the destination.
        port: Of the destination.
        tls: None: without TLS.
        seconds: To connect, the handshake of TLS included, and for the first exchange.

    Raises:
        OSError: No connection; TimeoutError: not in time.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, seconds: float) -> None:
        self.limit(seconds)
        self._socket = self._connected(host, port)
        if tls is not None:
            try:
                self._socket = tls.wrap_socket(
                    self._socket, server_hostname=host, do_handshake_on_connect=False
                )
                self._socket.settimeout(self._left())
                self._socket.do_handshake()
            except BaseException:
                self.close()
                raise

    def limit(self, seconds: float) -> None:
        """Begin an exchange: it may take so long, and its answer has at most ANSWER_BYTES."""
        self._deadline, self._bytes = time.monotonic() + seconds, ANSWER_BYTES

    def write(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: The connection is lost; TimeoutError: not in time.
        """
        view = memoryview(data)
        while view:
            self._socket.settimeout(self._left())
            view = view[self._socket.send(view) :]

    def read(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            PduError: The answer is too large.
            OSError: The connection is lost; TimeoutError: not in time.
        """
        if count > self._bytes:
            raise PduError(f"an answer of more than {ANSWER_BYTES} bytes")
        self._bytes -= count
        data = bytearray()
        while len(data) < count:
            self._socket.settimeout(self._left())
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return bytes(data)

    def unasked(self, count: int) -> bytes | None:
        """At most so many bytes that have arrived between two exchanges.

        Returns:
            None: nothing; empty: the connection is lost.
        """
        self._socket.settimeout(0)
        try:
            return self._socket.recv(count)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""

    def close(self, last: bytes = b"") -> None:
        """Close it; `last` is sent if this needs no waiting."""
        with suppress(OSError):
            self._socket.settimeout(0)
            if last:
                self._socket.send(last)
        self._socket.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self, host: str, port: int) -> socket.socket:
        """A connection to the first of the host's addresses that accepts one."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # no name of a host, for example with a label of 64 letters
            raise socket.gaierror from error
        failed: OSError = ConnectionRefusedError()
        for family, kind, protocol, _, address in found:
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(self._left())
                opened.connect(address)
            except OSError as error:
                opened.close()
                failed = error
            else:
                return opened
        raise failed
