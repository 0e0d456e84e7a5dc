"""Large bodies go from the socket straight into their buffer, and refusals straight back.

Read the usual way, in pieces through the HTTP parser, 13 MB of an uncompressed radiograph cost more
time than decoding it. And at three times the load, two of three requests are refused: what each
refusal costs, the images that were let in miss.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Event
from typing import cast

import httptools
from starlette.responses import Response
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.api.limits import BodyError, ClientGoneError

EXTENSION = "cxrview.body"
# In the state that an application's lifespan yields: what refuses requests by their heads
REFUSE = "cxrview.refuse"
# In the same state, an Event: once set, each connection is closed after its next request
DRAINING = "cxrview.draining"
Refuse = Callable[[Scope], Response | None]
ReadRest = Callable[[memoryview, Callable[[int], None]], Awaitable[None]]
# Bodies with less to come are not worth the change of protocols
LARGE_BYTES = 2**16
# Where all skipped bytes of all connections go; nobody ever reads them
SCRATCH_BYTES = 2**19
SCRATCH = memoryview(bytearray(SCRATCH_BYTES))


def read_rest_of(scope: Scope) -> ReadRest | None:
    """How to read the rest of this request's body into a buffer; None under another server.

    To be called with a writable buffer of exactly as many bytes as are missing, and with what is
    to be told how many have come; this may raise a BodyError. Call it after a message that said
    `more_body`, and never after another.

    Raises (the result, when awaited):
        ClientGoneError: The client has gone.
        BodyError: As it was raised by the callback.
    """
    extension = scope.get("extensions", {}).get(EXTENSION, {})
    return cast("ReadRest | None", extension.get("read_rest"))


class LargeBodyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which can step aside while the rest of a body comes in."""

    _refused: RequestResponseCycle | None = None
    _leaving = False  # after the body that is being skipped

    def on_headers_complete(self) -> None:
        """Offer it to the application, as an extension of the ASGI scope."""
        super().on_headers_complete()
        if self.cycle is not self._refused:
            read_rest = partial(self._read_rest, self.cycle)
            self.scope["extensions"] = {EXTENSION: {"read_rest": read_rest}}
        declared = dict(self.headers).get(b"content-length", b"0")
        self._missing = int(declared)  # the parser has refused what is no number

    def on_body(self, body: bytes) -> None:
        """Know how much is still to come, and keep nothing of what is refused."""
        self._missing -= len(body)
        if self.cycle is not self._refused:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Skip the rest of a large body that was refused: it costs half of parsing it."""
        super().on_response_complete()
        answered = self.cycle.response_complete  # and not only the one before it
        reading = self.transport.get_protocol() is self and not self.transport.is_closing()
        if answered and reading and self._missing > LARGE_BYTES:
            reader = _RestReader(self, self.cycle, self._missing)
            reader.discard()
            self.wake_after(min(self._missing, SCRATCH_BYTES))
            self.hand_over_to(reader)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Refuse without the application, if that is what it asks for."""
        refuse = cast("Refuse | None", self.app_state.get(REFUSE))
        usual = not cycle.keep_alive or cycle.waiting_for_100_continue or self.access_log
        refusal = None if refuse is None or usual else refuse(cast("Scope", cycle.scope))
        if refusal is None:
            draining = cast("Event | None", self.app_state.get(DRAINING))
            if draining is not None and draining.is_set():
                cycle.keep_alive = False
            super()._start_asgi_task(cycle, app)
        else:  # when all that came together with the head has been parsed
            self._refused = cycle
            self.loop.call_soon(self._answer, cycle, refusal)

    def _answer(self, cycle: RequestResponseCycle, response: Response) -> None:
        if cycle.disconnected:
            return
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in headers]
        status = STATUS_LINE[response.status_code]
        self.transport.write(b"".join([status, *lines, b"\r\n", bytes(response.body)]))
        cycle.response_started = cycle.response_complete = True
        cycle.on_response()
        cycle.on_response = lambda: None  # as uvicorn leaves it: no circle to collect

    async def _read_rest(
        self, cycle: RequestResponseCycle, rest: memoryview, count: Callable[[int], None]
    ) -> None:
        reader = _RestReader(self, cycle, len(rest), rest, count)
        self.hand_over_to(reader)
        self.flow.resume_reading()
        try:
            await reader.whole
        finally:
            reader.discard()

    def hand_over_to(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol read; it is asked for its buffer whenever reading begins."""
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """End after what is in flight; whose body is being skipped must get its answer first."""
        if self.transport.get_protocol() is not self and self.cycle.response_complete:
            self._leaving = True  # closed now, with bytes unread, it would be reset
        else:
            super().shutdown()

    def wake_after(self, count: int) -> None:
        """Be told of bytes only when so many are there."""
        wire = self.transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def take_back(self, cycle: RequestResponseCycle) -> None:
        """Go on with the next request, for which the parser must not wait for this one's body."""
        self.parser = httptools.HttpRequestParser(self)
        cycle.more_body, self._missing = False, 0
        self.hand_over_to(self)
        if self._leaving:
            self.transport.close()


class _RestReader(asyncio.BufferedProtocol):
    """Reads exactly the rest of one body, or skips it, and gives the connection back."""

    def __init__(
        self,
        http: LargeBodyProtocol,
        cycle: RequestResponseCycle,
        missing: int,
        rest: memoryview | None = None,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._http, self._cycle, self._count = http, cycle, count
        self._missing = missing
        self._rest = rest  # None: skip it

    def discard(self) -> None:
        """Read on, so that the connection stays usable, but keep nothing more."""
        self._rest = None
        self.whole.cancel()  # of what has ended already, that changes nothing

    def get_buffer(self, _: int) -> memoryview:
        if self._rest is None:
            return SCRATCH[: self._missing]
        return self._rest[-self._missing :]

    def buffer_updated(self, nbytes: int) -> None:
        self._missing -= nbytes
        if self._rest is not None:
            try:
                self._count(nbytes)
            except BodyError as error:
                self._settle(error)
                self.discard()
        elif self._missing < SCRATCH_BYTES:
            self._http.wake_after(max(1, self._missing))
        if not self._missing:
            self._http.take_back(self._cycle)
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._settle(ClientGoneError("the client has gone"))

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def _settle(self, error: Exception | None) -> None:
        if self.whole.done():
            return
        if error is None:
            self.whole.set_result(None)
        else:
            self.whole.set_exception(error)
