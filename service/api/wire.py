"""One connection: each read goes where it belongs.

Read the usual way, in pieces through the HTTP parser, 13 MB of an uncompressed radiograph cost more
time than decoding it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any, cast

from uvicorn import Config
from uvicorn.server import ServerState

from service.api.http_protocol import Count, HttpProtocol
from service.api.limits import BodyError, ClientGoneError

# Of a body that comes with its head, so much takes the usual way, on which it is copied four times
HEAD_BYTES = 2**13
# What is read of other bodies at a time
PIECE_BYTES = 2**18
# Of a body that nobody wants, so much is thrown away at a time
SKIP_BYTES = 2**19
ON_WINDOWS = sys.platform == "win32"
# Linux throws away without copying, others copy
THROW_AWAY = 0 if ON_WINDOWS else int(socket.MSG_DONTWAIT | socket.MSG_TRUNC)


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
        self._wire: socket.socket | None = None
        self._http = HttpProtocol(self, config, server_state, app_state, _loop)
        self._scratch = memoryview(bytearray(SKIP_BYTES)) if ON_WINDOWS else self._shared
        self._wakes_after = 1
        self._rest: memoryview | None = None  # of the body that is being read
        self._whole: asyncio.Future[None] | None = None
        self._count: Count = lambda _: None
        self.skipping = False  # the rest of a body that nobody wants

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        if transport.get_extra_info("sslcontext") is None:
            wire = transport.get_extra_info("socket")
            # The transport's may not receive, and uvloop's makes one like this for each call
            self._wire = socket.socket(wire.family, wire.type, wire.proto, wire.fileno())
        self._http.connection_made(cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """End; from now on the number of its socket may be another connection's."""
        self._let_go()
        self._rest = None
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
            self._http.answer_refused()

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
        """What has come, while it is still in the kernel."""
        if self._wire is None or ON_WINDOWS:
            return
        most = min(self._http.missing, SKIP_BYTES)
        try:
            skipped = self._wire.recv_into(self._scratch, most, THROW_AWAY)
        except OSError:
            return  # nothing is there, or the read that follows says what is wrong
        self._skipped(skipped)

    def _wake_after(self, nbytes: int) -> None:
        """Be told of bytes only when so many are there."""
        if self._wire is not None and nbytes != self._wakes_after:
            self._wakes_after = nbytes
            self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def _let_go(self) -> None:
        """Leave the socket to the transport, which closes it."""
        if self._wire is not None:
            self._wire.detach()
            self._wire = None

    __del__ = _let_go  # where a loop has ended before its connections

    def _settle(self, error: Exception | None) -> None:
        if self._whole is None or self._whole.done():
            return
        if error is None:
            self._whole.set_result(None)
        else:
            self._whole.set_exception(error)
