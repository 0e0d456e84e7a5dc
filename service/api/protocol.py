"""uvicorn's h11 protocol, with the deadlines and limits that it lacks.

uvicorn has no deadline for a head or for a client that does not read, and h11 parses whatever one
read brings: a head of 250 kB takes 0.1 s, a body in chunks of one byte 0.2 s for each 250 kB.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# A body may have so many chunks, and one more for each so many bytes: clients send 1 KiB and more
FREE_CHUNKS = 1000
CHUNK_BYTES = 256


@dataclass(frozen=True)
class ConnectionLimits:
    """See `Settings`. `unlimited_port` is that of the probes, which must reach a full service."""

    head_bytes: int
    head_seconds: float
    body_seconds: float
    write_seconds: float
    connections: int
    unlimited_port: int | None = None


class BoundedConnection(h11.Connection):
    """A parser that refuses what would take long, before it is parsed.

    Args:
        head_bytes: Of a head.
    """

    def __init__(self, head_bytes: int) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self.head_bytes = head_bytes
        self.head_too_large = False
        self.chunks_left = 0.0

    def receive_data(self, data: bytes) -> None:
        """Take what the client has sent."""
        if self.their_state is h11.IDLE and len(data) > self.head_bytes:
            self.head_too_large = b"\r\n\r\n" not in data[: self.head_bytes]
        super().receive_data(data)

    def next_event(self) -> Any:
        """The next part of a request.

        Raises:
            h11.RemoteProtocolError: It is none, or it is refused.
        """
        if self.head_too_large:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks_left = FREE_CHUNKS
        elif isinstance(event, h11.Data):
            self.chunks_left += len(event.data) / CHUNK_BYTES - event.chunk_start
            if self.chunks_left < 0:
                raise h11.RemoteProtocolError("the chunks are too small")
        return event


class BoundedProtocol(H11Protocol):
    """One connection; a client that makes it wait for too long loses it.

    Args:
        limits: Of each connection, and how many there may be.
        options: Those that uvicorn gives to its protocols.
    """

    def __init__(self, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits
        self.conn = BoundedConnection(limits.head_bytes)
        self.head_timer = self.write_timer = self.loop.call_later(0, lambda: None)
        self.idle_since: float | None = None  # while it waits for a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head; if there are too many connections, close the one that waits longest."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self.head_timer = self.loop.call_later(self.limits.head_seconds, transport.abort)
        limited = self.server is None or self.server[1] != self.limits.unlimited_port
        if limited and len(self.connections) > self.limits.connections:
            own = (each for each in self.connections if isinstance(each, BoundedProtocol))
            peers = [each for each in own if each.server == self.server]
            if len(peers) > self.limits.connections:
                idle = [each for each in peers if each.idle_since is not None]
                min(idle, key=attrgetter("idle_since")).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, which hold the connection."""
        self.head_timer.cancel()
        self.write_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A body that ends here is refused; a client that says no more has gone."""
        if self.conn.their_state is h11.SEND_BODY:
            self.data_received(b"")

    def handle_events(self) -> None:
        """A head is complete, or the request breaks off."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # its answer has been sent, and no second one can be
            self.transport.abort()
        if self.cycle is not None and not self.cycle.response_complete:
            self.idle_since = None
            self.head_timer.cancel()
            if self.transport.is_closing():  # uvicorn has answered, which the application must know
                self.cycle.disconnected = True
                self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Wait for the next head, after the rest of the body if the answer came before it."""
        whole, limits = self.conn.their_state is h11.DONE, self.limits
        seconds = limits.head_seconds if whole else limits.body_seconds
        self.idle_since = self.loop.time()
        self.head_timer.cancel()
        self.head_timer = self.loop.call_later(seconds, self.transport.abort)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        self.write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.write_timer.cancel()
        super().resume_writing()
