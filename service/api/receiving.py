"""Receiving a body, and noticing when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
from fastapi import Request

from service.api.http_protocol import LARGE_BYTES, read_body_of
from service.api.limits import BodyTimeoutError, BodyTooLargeError, ClientGoneError, Holding
from service.inference import Buffer

# A sender at more than 100 Mbit/s needs less for the largest uncompressed radiographs
ARRIVAL_SECONDS = 1.0


def length_of(request: Request, limit: int) -> int:
    """The declared length of the body in bytes, 0 if it is not declared.

    Raises:
        BodyTooLargeError: It is more than `limit`.
    """
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isdecimal() else 0
    if length > limit:
        raise BodyTooLargeError(f"the body has {length} bytes; the limit is {limit}")
    return length


async def receive(
    request: Request,
    limit: int,
    idle_seconds: float,
    holding: Holding,
    write: Callable[[bytes], object],
) -> None:
    """Write the body to `write` as it comes.

    Raises:
        BodyTooLargeError, BodyTimeoutError, ServiceFullError, ClientGoneError
    """
    async with _patience(idle_seconds, holding) as count:
        received, more = 0, True
        while more:
            chunk, more = await _next_chunk(request)
            received += len(chunk)
            if received > limit:
                raise BodyTooLargeError(f"the body exceeds the limit of {limit} bytes")
            count(len(chunk))
            write(chunk)


async def receive_whole(
    request: Request, length: int, idle_seconds: float, holding: Holding
) -> Buffer:
    """A body of declared length, in one buffer.

    Raises:
        BodyTimeoutError, ServiceFullError, ClientGoneError
    """
    # A `bytearray` would be filled with zeros first
    whole = memoryview(np.empty(length, np.uint8))  # type: ignore[arg-type]
    read_body = read_body_of(request.scope)
    if read_body is not None and length > LARGE_BYTES:
        async with _patience(idle_seconds, holding) as count:
            await read_body(whole, count)
        return whole
    received, more = 0, True
    async with _patience(idle_seconds, holding) as count:
        while more:
            chunk, more = await _next_chunk(request)
            count(len(chunk))
            whole[received : received + len(chunk)] = chunk
            received += len(chunk)
    return whole


async def _next_chunk(request: Request) -> tuple[bytes, bool]:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client has gone")
    return message.get("body", b""), message.get("more_body", False)


@asynccontextmanager
async def _patience(idle_seconds: float, holding: Holding) -> AsyncIterator[Callable[[int], None]]:
    """End the block if it does not call, for so long, what it is given to count bytes."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(idle_seconds) as timeout:

            def count(received: int) -> None:
                holding.add(received)
                timeout.reschedule(loop.time() + idle_seconds)

            yield count
    except TimeoutError:
        raise BodyTimeoutError(f"nothing was received for {idle_seconds:g} s") from None


@contextmanager
def lapsing(*lapse: Callable[[], None]) -> Iterator[None]:
    """Call these if the block, in which a body is received, takes longer than most do."""
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(ARRIVAL_SECONDS, call) for call in lapse]
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def unless_gone(request: Request, answer: asyncio.Future[Any]) -> Iterator[None]:
    """Cancel `answer`, which the block waits for, when the client goes; for after the body.

    Raises:
        ClientGoneError: It has gone.
    """
    watch = asyncio.create_task(_until_disconnected(request))
    watch.add_done_callback(lambda _: answer.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if watch.done():
            raise ClientGoneError("the client has gone") from None
        raise
    finally:
        watch.cancel()


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
