"""Bodies are counted while they stream in, and stay in memory: no upload ever touches a disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect


class BodyError(Exception):
    """The request's body cannot be taken."""


class BodyTooLargeError(BodyError):
    """More bytes than the limit; known from Content-Length or while counting."""


class BodyTimeoutError(BodyError):
    """The client stopped sending in the middle."""


class ClientGoneError(BodyError):
    """Nobody waits for the answer any more."""


class ServiceFullError(BodyError):
    """Too many bytes of other requests are held in memory already."""

    retry_after_seconds = 1


class HeldBytes:
    """How many bytes of bodies are in memory, over all requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def open(self) -> Iterator[Holding]:
        """One request's share; given back at the end, however it ends."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.held -= holding.bytes


class Holding:
    """What one request holds."""

    def __init__(self, total: HeldBytes) -> None:
        self._total = total
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count `count` more bytes.

        Raises:
            ServiceFullError: They do not fit beside those of the other requests.
        """
        if self._total.held + count > self._total.limit:
            raise ServiceFullError("too many uploads are in memory")
        self._total.held += count
        self.bytes += count


async def chunks_of(
    request: Request, limit: int, idle_seconds: float, holding: Holding
) -> AsyncIterator[bytes]:
    """The body in chunks, none of which makes it exceed `limit` bytes.

    Raises:
        BodyTooLargeError, BodyTimeoutError, ServiceFullError, ClientGoneError
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLargeError(f"the body has {declared} bytes; the limit is {limit}")
    received = 0
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BodyTimeoutError(f"nothing was received for {idle_seconds:g} s") from None
        except ClientDisconnect:
            raise ClientGoneError("the client has gone") from None
        received += len(chunk)
        if received > limit:
            raise BodyTooLargeError(f"the body exceeds the limit of {limit} bytes")
        holding.add(len(chunk))
        yield chunk


async def until_disconnected(request: Request) -> None:
    """Return when the client has gone; call after the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
