"""uvicorn's h11 protocol, with the deadlines and the limit on connections that it lacks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class ConnectionLimits:
    """See `Settings`. `unlimited_port` is that of the probes, which must reach a full service."""

    head_bytes: int
    head_seconds: float
    write_seconds: float
    connections: int
    unlimited_port: int | None = None


class BoundedProtocol(H11Protocol):
    """One connection; a client that makes it wait for too long loses it.

    Args:
        limits: Of each connection, and how many there may be.
        options: Those that uvicorn gives to its protocols.
    """

    def __init__(self, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits
        self.head_timer = self.write_timer = self.loop.call_later(0, lambda: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, or close the connection if there are too many."""
        super().connection_made(transport)
        limited = self.server is None or self.server[1] != self.limits.unlimited_port
        if limited and len(self.connections) > self.limits.connections:
            transport.abort()
        self.head_timer = self.loop.call_later(self.limits.head_seconds, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, which hold the connection."""
        self.head_timer.cancel()
        self.write_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse no more of a head than its limit: h11 checks that only between pieces."""
        piece = len(data) if self.conn.their_state is h11.SEND_BODY else self.limits.head_bytes
        for at in range(0, len(data), piece):
            if not self.transport.is_closing():
                super().data_received(data[at : at + piece])

    def handle_events(self) -> None:
        """A head is complete, or the rest of a body breaks off whose answer has been sent."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # no second answer can be sent
            self.transport.abort()
        if self.cycle is not None and not self.cycle.response_complete:
            self.head_timer.cancel()

    def on_response_complete(self) -> None:
        """Wait for the rest of the body, if it was not read, and the next head."""
        self.head_timer.cancel()
        self.head_timer = self.loop.call_later(self.limits.head_seconds, self.transport.abort)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        self.write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.write_timer.cancel()
        super().resume_writing()
