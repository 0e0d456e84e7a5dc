"""uvicorn's h11 protocol, with deadlines and limits that it lacks.

uvicorn has no deadline for a request's head, nor for a client that does not read its answer. h11
parses all bytes of one read at once: a head of 250 kB takes 0.1 s, and 250 kB of body in chunks of
one byte take 0.2 s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# A body may have FREE_CHUNKS chunks, and one more for each CHUNK_BYTES bytes; usual clients send
# chunks of 1 KiB or more
FREE_CHUNKS = 1000
CHUNK_BYTES = 256


@dataclass(frozen=True)
class ConnectionLimits:
    """See `Settings`. Probes on `unlimited_port` must reach a service at its connection limit."""

    head_bytes: int
    head_seconds: float
    body_seconds: float
    write_seconds: float
    connections: int
    unlimited_port: int | None = None


class BoundedConnection(h11.Connection):
    """An h11 parser that refuses requests that would be slow to parse.

    Args:
        head_bytes: The largest head.
    """

    def __init__(self, head_bytes: int) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self.head_bytes = head_bytes
        self.head_too_large = False
        self.chunks_left = 0.0

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self.their_state is h11.IDLE and len(data) > self.head_bytes:
            self.head_too_large = b"\r\n\r\n" not in data[: self.head_bytes]
        super().receive_data(data)

    def next_event(self) -> Any:
        """The next event of a request.

        Raises:
            h11.RemoteProtocolError: The request is malformed, or refused.
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
    """One connection, which is closed if its client exceeds a deadline.

    Args:
        limits: The limits of each connection, and of their number.
        options: Arguments from uvicorn.
    """

    def __init__(self, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits
        self.conn = BoundedConnection(limits.head_bytes)
        self.head_timer = self.write_timer = self.loop.call_later(0, lambda: None)
        self.idle_since: float | None = None  # while it waits for a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the head's deadline; above the limit, close the connection that idles longest."""
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
        """Stop the timers, which keep a reference to the connection."""
        self.head_timer.cancel()
        self.write_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Handle the end of the client's data: inside a body, the request is refused."""
        if self.conn.their_state is h11.SEND_BODY:
            self.data_received(b"")

    def handle_events(self) -> None:
        """Handle parsed events: a complete head stops the deadline, an error ends the request."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # the answer has been sent; a second one is impossible
            self.transport.abort()
        if self.cycle is not None and not self.cycle.response_complete:
            self.idle_since = None
            self.head_timer.cancel()
            if self.transport.is_closing():  # uvicorn has answered itself: tell the application
                self.cycle.disconnected = True
                self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Start the deadline of the next head, or of the rest of the body."""
        whole, limits = self.conn.their_state is h11.DONE, self.limits
        seconds = limits.head_seconds if whole else limits.body_seconds
        self.idle_since = self.loop.time()
        self.head_timer.cancel()
        self.head_timer = self.loop.call_later(seconds, self.transport.abort)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the deadline of a client that does not read its answer."""
        self.write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop the deadline: the client reads again."""
        self.write_timer.cancel()
        super().resume_writing()
