"""HTTP, from which images take shorter ways: large bodies in, and refusals out.

At three times the load, two of three requests are refused: what each refusal costs, the images that
were let in miss. So it is written as soon as the head is known, before there is a request for the
application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from threading import Event
from typing import Any, NamedTuple, Protocol, cast
from weakref import proxy, ref

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

from service.api.limits import ClientGoneError

EXTENSION = "cxrview.body"
# In the state that an application's lifespan yields: what refuses requests by their heads
REFUSE = "cxrview.refuse"
# In the same state, an Event: once set, each connection is closed after its next request
DRAINING = "cxrview.draining"
Count = Callable[[int], None]
ReadBody = Callable[[memoryview, Count], Awaitable[None]]
# Bodies with less to come are not worth another way
LARGE_BYTES = 2**16


class Answer(NamedTuple):
    """A whole response, ready to be sent, but for the headers that the server adds."""

    status_line: bytes
    rest: bytes


# By method and target, each as it was sent; None: the application answers
Refuse = Callable[[bytes, bytes], Answer | None]


def answer_of(response: Response) -> Answer:
    """How a response is written."""
    rest = as_lines(*response.raw_headers) + b"\r\n" + bytes(response.body)
    return Answer(STATUS_LINE[response.status_code], rest)


@lru_cache  # the server's own change once a second
def as_lines(*headers: tuple[bytes, bytes]) -> bytes:
    """How headers are written."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


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


class BodyReader(Protocol):
    """Whatever reads the connection."""

    skipping: bool  # the rest of a body that nobody wants

    async def read(self, rest: memoryview, count: Count) -> None:
        """The rest of the present body, past the parser."""

    def skip(self) -> None:
        """The same, but keep nothing."""


class Reading:
    """How the application reads a body past the parser; see `read_body_of`.

    Connection and request hold the scope, and with it this: if it held them in turn, all three
    would wait for a search for garbage, which stops everything.

    Args:
        protocol: Of the connection.
        cycle: Of the request.
    """

    def __init__(self, protocol: HttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = ref(protocol), ref(cycle)

    async def __call__(self, whole: memoryview, count: Count) -> None:
        """Fill the buffer.

        Raises:
            ClientGoneError, BodyError
        """
        protocol, cycle = self._protocol(), self._cycle()
        if protocol is None or cycle is None or cycle.disconnected:
            raise ClientGoneError("the client has gone")
        await protocol.read_body(cycle, whole, count)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, which does without the large bodies, and refuses without the application.

    Args:
        reader: Takes the bodies, or throws them away.
        config: As uvicorn gives it to its protocols, and so are the others.
        server_state: Of all connections.
        app_state: What the application's lifespan has yielded.
        loop: The running one.
    """

    def __init__(
        self,
        reader: BodyReader,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.missing = 0  # bytes of the present body
        self._reader: BodyReader = proxy(reader)  # it holds this, which must not hold it
        self._unwanted = False  # the present body
        self._refusals: list[Answer] = []  # not written yet
        self._leaving = False  # after the body that is being skipped

    @property
    def within_body(self) -> bool:
        """Whether what comes next is no head."""
        return self._unwanted or (self.cycle is not None and self.cycle.more_body)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        """Only what reads the head; most of what uvicorn begins with is of no use to a refusal."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Refuse, or offer another way to the application, as an extension of the ASGI scope."""
        declared = dict(self.headers).get(b"content-length", b"0")
        self.missing = int(declared)  # the parser has refused what is no number
        refusal = self._refusal()
        if refusal is not None:
            self._unwanted = True
            self._refusals.append(refusal)
            return
        self._begin_request()
        super().on_headers_complete()
        self.scope["extensions"] = {EXTENSION: {"read_body": Reading(self, self.cycle)}}
        if self.missing > LARGE_BYTES:  # until it is known which way it takes
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Know how much is still to come, and keep nothing of what is refused."""
        self.missing -= len(body)
        if not self._unwanted:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head follows."""
        if self._unwanted:
            self._unwanted = False
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Skip the rest of a large body that nobody has read."""
        super().on_response_complete()
        answered = self.cycle.response_complete  # and not only the one before it
        if answered and not self.transport.is_closing():
            self._skip_rest()

    def answer_refused(self) -> None:
        """Write the refusals of all requests that have been parsed."""
        if not self._refusals or self.transport.is_closing():
            return
        added = as_lines(*self.server_state.default_headers)
        for refusal in self._refusals:
            self.transport.write(refusal.status_line + added + refusal.rest)
        self.server_state.total_requests += len(self._refusals)
        self._refusals.clear()
        self._unset_keepalive_if_required()
        if self._idle:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._unwanted:
            self._skip_rest()

    def body_ends(self) -> None:
        """Go on with the next request, for which the parser must not wait for this one's body."""
        self.parser = httptools.HttpRequestParser(self)
        if self._unwanted:
            self._unwanted = False
        else:
            self.cycle.more_body = False
        if self._leaving:
            self.loop.call_soon(self.transport.close)  # not while it is reading

    async def read_body(self, cycle: RequestResponseCycle, whole: memoryview, count: Count) -> None:
        """See `read_body_of`; the client was there a moment ago."""
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

    def shutdown(self) -> None:
        """End after what is in flight; whose body is being skipped must get its answer first."""
        if self._reader.skipping and self._idle:
            self._leaving = True  # closed now, with bytes unread, it would be reset
        else:
            super().shutdown()

    def _begin_request(self) -> None:
        url, headers, waits = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, waits
        self.headers += headers  # the same list as in the scope

    def _refusal(self) -> Answer | None:
        refuse = cast("Refuse | None", self.app_state.get(REFUSE))
        # Who is to be told more than no, or to be answered after others, is left to the application
        usual = self.access_log or self.expect_100_continue or self._draining or not self._idle
        odd = self.parser.should_upgrade() or not self.parser.should_keep_alive()
        if refuse is None or usual or odd:
            return None
        return refuse(self.parser.get_method(), self.url)

    @property
    def _draining(self) -> bool:
        draining = cast("Event | None", self.app_state.get(DRAINING))
        return draining is not None and draining.is_set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Each connection is closed after one more request, once that is wanted."""
        if self._draining:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _skip_rest(self) -> None:
        if self.missing > LARGE_BYTES and not self._reader.skipping:
            self._reader.skip()
