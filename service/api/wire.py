"""Large bodies go from the socket straight into their buffer, and refused ones nowhere.

Read the usual way, in pieces through the HTTP parser, 13 MB of an uncompressed radiograph cost more
time than decoding it. And at three times the load, two of three requests are refused: what each
refusal costs, the images that were let in miss.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Event
from typing import Any, cast

import httptools
from starlette.responses import Response
from starlette.types import Scope
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.api.limits import BodyError, ClientGoneError

EXTENSION = "cxrview.body"
# In the state that an application's lifespan yields: what refuses requests by their heads
REFUSE = "cxrview.refuse"
# In the same state, an Event: once set, each connection is closed after its next request
DRAINING = "cxrview.draining"
Refuse = Callable[[Scope], Response | None]
Count = Callable[[int], None]
ReadBody = Callable[[memoryview, Count], Awaitable[None]]
# Bodies with less to come are not worth another way
LARGE_BYTES = 2**16
# Of a body that comes with its head, so much takes the usual way, on which it is copied four times
HEAD_BYTES = 2**13
# What is read of other bodies at a time
PIECE_BYTES = 2**18
# Of a body that nobody wants, so much is thrown away at a time
SKIP_BYTES = 2**19


def read_body_of(scope: Scope) -> ReadBody | None:
    """How to read this request's body into a buffer; None: only by ASGI's `receive`.

    To be called before `receive`, with a writable buffer of exactly as many bytes as the request
    declares, and with what is to be told how many have come; this may raise a BodyError.

    Raises (the result, when awaited):
        ClientGoneError: The client has gone.
        BodyError: As it was raised by the callback.
    """
    extension = scope.get("extensions", {}).get(EXTENSION, {})
    return cast("ReadBody | None", extension.get("read_body"))


class LargeBodyProtocol(asyncio.BufferedProtocol):
    """One connection: heads and small bodies go to uvicorn's HTTP protocol, large bodies do not.

    Args:
        config: As uvicorn gives it to its own protocols, and so are the others.
        server_state: Of all connections.
        app_state: What the application's lifespan has yielded.
        _loop: The running one.
    """

    # All connections read into the same memory, one at a time, and hand on what came before the
    # next reads. Where reads are under way at the same time, each has its own
    _shared = memoryview(bytearray(SKIP_BYTES))

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._http = _HttpProtocol(self, config, server_state, app_state, _loop)
        on_windows = sys.platform == "win32"
        self._scratch = memoryview(bytearray(SKIP_BYTES)) if on_windows else self._shared
        self._wire: socket.socket | None = None
        self._wakes_after = 1
        self._rest: memoryview | None = None  # of the body that is being read
        self._whole: asyncio.Future[None] | None = None
        self._count: Count = lambda _: None
        self.skipping = False  # the rest of a body that nobody wants

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        if transport.get_extra_info("sslcontext") is None:
            self._wire = transport.get_extra_info("socket")
        self._http.connection_made(cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._http.connection_lost(exc)
        self._settle(ClientGoneError("the client has gone"))

    def eof_received(self) -> None:
        """Nothing more will come."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Too much waits to be sent."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """It has been sent."""
        self._http.resume_writing()

    def get_buffer(self, _: int) -> memoryview:
        """Where the next read goes."""
        if self._rest is not None:
            return self._rest[-self._http.missing :]
        if self.skipping:
            self._throw_away()
        if self.skipping:  # still
            return self._scratch[: self._http.missing]
        return self._scratch[: PIECE_BYTES if self._http.within_body else HEAD_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        if self._rest is not None:
            self._http.missing -= nbytes
            self._received(nbytes)
        elif self.skipping:
            self._skipped(nbytes)
        else:
            self._http.data_received(bytes(self._scratch[:nbytes]))

    async def read(self, rest: memoryview, count: Count) -> None:
        """The rest of the present body, past the parser."""
        self._rest, self._count = rest, count
        self._whole = asyncio.get_running_loop().create_future()
        try:
            await self._whole
        finally:
            if self._rest is not None:  # who wanted it has given up
                self.skip()

    def skip(self) -> None:
        """Read the rest of the present body, so that the connection stays usable; keep nothing."""
        self._rest, self.skipping = None, True
        self._throw_away()
        if self.skipping:
            self._wake_after(min(self._http.missing, SKIP_BYTES))

    def _received(self, nbytes: int) -> None:
        failure = None
        try:
            self._count(nbytes)
        except BodyError as error:
            failure = error
        if not self._http.missing:
            self._rest = None
            self._http.body_ends()
        elif failure is not None:
            self.skip()
        if self._rest is None:
            self._settle(failure)

    def _skipped(self, nbytes: int) -> None:
        self._http.missing -= nbytes
        if not self._http.missing:
            self.skipping = False
            self._wake_after(1)
            self._http.body_ends()
        elif self._http.missing < SKIP_BYTES:
            self._wake_after(self._http.missing)

    def _throw_away(self) -> None:
        """What has come, in the kernel: Linux does not even copy it; others do."""
        if self._wire is None or sys.platform == "win32":
            return
        most = min(self._http.missing, SKIP_BYTES)
        wire, flags = self._wire, socket.MSG_DONTWAIT | socket.MSG_TRUNC
        same = socket.socket(wire.family, wire.type, wire.proto, wire.fileno())
        try:
            self._skipped(same.recv_into(self._scratch, most, flags))
        except OSError:
            pass  # the read that follows has it as well, or there is nothing
        finally:
            same.detach()

    def _wake_after(self, nbytes: int) -> None:
        """Be told of bytes only when so many are there."""
        if self._wire is not None and nbytes != self._wakes_after:
            self._wakes_after = nbytes
            self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def _settle(self, error: Exception | None) -> None:
        if self._whole is None or self._whole.done():
            return
        if error is None:
            self._whole.set_result(None)
        else:
            self._whole.set_exception(error)


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's, which does without the large bodies, and refuses without the application."""

    def __init__(
        self,
        reader: LargeBodyProtocol,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.missing = 0  # bytes of the present body
        self._reader = reader
        self._refused: RequestResponseCycle | None = None
        self._leaving = False  # after the body that is being skipped

    @property
    def within_body(self) -> bool:
        """Whether what comes next is no head."""
        return self.cycle is not None and self.cycle.more_body

    def on_headers_complete(self) -> None:
        """Offer another way to the application, as an extension of the ASGI scope."""
        super().on_headers_complete()
        declared = dict(self.headers).get(b"content-length", b"0")
        self.missing = int(declared)  # the parser has refused what is no number
        if self.cycle is not self._refused:
            self.scope["extensions"] = {
                EXTENSION: {"read_body": partial(self._read_body, self.cycle)}
            }
        if self.missing > LARGE_BYTES:  # until it is known which way it takes
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Know how much is still to come, and keep nothing of what is refused."""
        self.missing -= len(body)
        if self.cycle is not self._refused:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Skip the rest of a large body that was refused."""
        super().on_response_complete()
        answered = self.cycle.response_complete  # and not only the one before it
        idle = not self._reader.skipping and not self.transport.is_closing()
        if answered and idle and self.missing > LARGE_BYTES:
            self._reader.skip()

    def body_ends(self) -> None:
        """Go on with the next request, for which the parser must not wait for this one's body."""
        self.parser = httptools.HttpRequestParser(self)
        self.cycle.more_body = False
        if self._leaving:
            self.loop.call_soon(self.transport.close)  # not while it is reading

    def shutdown(self) -> None:
        """End after what is in flight; whose body is being skipped must get its answer first."""
        if self._reader.skipping and self.cycle.response_complete:
            self._leaving = True  # closed now, with bytes unread, it would be reset
        else:
            super().shutdown()

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

    async def _read_body(
        self, cycle: RequestResponseCycle, whole: memoryview, count: Count
    ) -> None:
        if cycle.disconnected:
            raise ClientGoneError("the client has gone")
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        come = len(cycle.body)
        whole[:come] = cycle.body
        cycle.body = bytearray()
        count(come)
        if come < len(whole):
            self.flow.resume_reading()
            await self._reader.read(whole[come:], count)
