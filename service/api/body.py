"""Read a request's body, whole or not at all, and detect a disconnected client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.requests import Request

from service.api.request_errors import (
    BodyLengthError,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
)
from service.api.settings import Settings
from service.inference import Buffer
from service.uploads.budget import Reservation

# At 100 Mbit/s the largest uncompressed radiographs arrive in less time
ARRIVAL_SECONDS = 1.0


def length_of(request: Request, limit: int) -> int:
    """The Content-Length in bytes; 0 without one.

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
    settings: Settings,
    reservation: Reservation,
    write: Callable[[bytes], object],
) -> None:
    """Pass the chunks of the body to `write` as they arrive.

    Raises:
        BodyTooLargeError: The body has more than `limit` bytes.
        BodyTimeoutError: No data for `max_receive_idle_seconds`, or not whole in time.
        BodyLengthError: The length differs from Content-Length.
        ServiceFullError: The bytes exceed the reservation, and no more can be reserved.
        ClientGoneError: The client has disconnected.
    """
    async for chunk in chunks_of(request, limit, settings):
        reservation.add(len(chunk))
        write(chunk)


async def chunks_of(request: Request, limit: int, settings: Settings) -> AsyncIterator[bytes]:
    """The chunks of the body as they arrive; the time that the caller takes does not count.

    Raises:
        BodyTooLargeError, BodyTimeoutError, BodyLengthError, ClientGoneError: See `receive`.
    """
    declared = length_of(request, limit)
    received = 0
    async for chunk in _chunks(request, settings):
        received += len(chunk)
        if received > limit:
            raise BodyTooLargeError(f"the body exceeds the limit of {limit} bytes")
        yield chunk
    _check_length(received, declared or received)


async def receive_whole(
    request: Request, length: int, settings: Settings, reservation: Reservation
) -> Buffer:
    """A body of `length` bytes, in one buffer.

    Raises:
        BodyTimeoutError, BodyLengthError, ServiceFullError, ClientGoneError: See `receive`.
    """
    # `bytearray(length)` would write zeros first. Here every byte is overwritten, or it fails
    whole = memoryview(np.empty(length, np.uint8))  # type: ignore[arg-type]
    received = 0
    async for chunk in _chunks(request, settings):
        end = received + len(chunk)
        if end > length:
            _check_length(end, length)
        reservation.add(len(chunk))
        whole[received:end] = chunk
        received = end
    _check_length(received, length)
    return whole


async def discard(request: Request, settings: Settings) -> None:
    """Read and drop the rest of a body, up to the size of the largest accepted one.

    Raises:
        BodyTimeoutError, BodyTooLargeError, ClientGoneError: The body could not be read to its end.
    """
    length_of(request, settings.max_batch_body_bytes)
    received = 0
    async for chunk in _chunks(request, settings):
        received += len(chunk)
        if received > settings.max_batch_body_bytes:
            raise BodyTooLargeError("more than the largest body")


def _check_length(received: int, declared: int) -> None:
    if received != declared:
        raise BodyLengthError(f"Content-Length is {declared}, but the body has {received} bytes")


async def _chunks(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The chunks of the body as they arrive, within the time limits."""
    loop = asyncio.get_running_loop()
    idle, left = settings.max_receive_idle_seconds, settings.max_receive_seconds
    more = True
    while more:
        begin = loop.time()
        try:
            async with asyncio.timeout(min(idle, left)):
                message = await request.receive()
        except TimeoutError:
            if idle < left:
                raise BodyTimeoutError(f"nothing was received for {idle:g} s") from None
            seconds = settings.max_receive_seconds
            raise BodyTimeoutError(f"the body was not complete after {seconds:g} s") from None
        left -= loop.time() - begin
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client has gone")
        more = message.get("more_body", False)
        yield message.get("body", b"")


@contextmanager
def lapsing(*lapse: Callable[[], None]) -> Iterator[None]:
    """Call these functions if the block, which receives a body, takes over `ARRIVAL_SECONDS`."""
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(ARRIVAL_SECONDS, call) for call in lapse]
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def unless_gone(request: Request, answer: asyncio.Future[Any]) -> Iterator[None]:
    """Cancel `answer`, for which the block waits, if the client disconnects.

    The body must have been read before.

    Raises:
        ClientGoneError: The client has disconnected.
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
