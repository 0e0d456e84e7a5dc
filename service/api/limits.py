"""Bodies are counted, and stay in memory: no upload ever touches a disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from service.inference import LANES, Lane

# Of all bytes; the rest is kept free for interactive bodies
BACKFILL_SHARE = 0.75


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

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many uploads are in memory")
        self.retry_after_seconds = retry_after_seconds


class HeldBytes:
    """How many bytes of bodies are in memory, over all requests.

    Whoever does not fit waits in order, interactive bodies before backfill, while its bytes wait
    in its client.

    Args:
        limit: Bytes. Backfill may fill `BACKFILL_SHARE` of it.
        retry_after_seconds: What those are told who waited in vain.
        count: Called with the bytes that came of each body, at its end.
    """

    def __init__(
        self,
        limit: int,
        retry_after_seconds: Callable[[Lane], int] = lambda _: 1,
        count: Callable[[Lane, int], None] = lambda _, __: None,
    ) -> None:
        self.limit = limit
        self.held = 0
        self.retry_after_seconds = retry_after_seconds
        self.count = count
        self._waiting: dict[Lane, deque[tuple[int, asyncio.Future[None]]]] = {
            lane: deque() for lane in LANES
        }

    def open(self, lane: Lane, expected: int, patience_seconds: float) -> Holding:
        """One request's share, of `expected` bytes; given back at the end, however it ends.

        Raises (on entering):
            ServiceFullError: There was no room for `patience_seconds`.
        """
        return Holding(self, lane, expected, patience_seconds)

    def take(self, lane: Lane, count: int) -> bool:
        """Count bytes that fit now; False if they do not."""
        fits = self.held + count <= self.limit * (BACKFILL_SHARE if lane == "backfill" else 1)
        if fits:
            self.held += count
        return fits

    async def take_in_turn(self, lane: Lane, count: int, patience_seconds: float) -> None:
        """Count bytes as soon as they fit.

        Raises:
            ServiceFullError: They did not for `patience_seconds`.
        """
        if not any(self._waiting.values()) and self.take(lane, count):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append((count, turn))
        self._wake()
        try:
            async with asyncio.timeout(patience_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it had just got them
                self.give_back(count)
            if isinstance(error, TimeoutError):
                raise ServiceFullError(self.retry_after_seconds(lane)) from None
            raise

    def give_back(self, count: int) -> None:
        """Bytes that are no longer in memory."""
        self.held -= count
        self._wake()

    def _wake(self) -> None:
        for lane in LANES:
            waiting = self._waiting[lane]
            while waiting:
                count, turn = waiting[0]
                if not turn.done():
                    if not self.take(lane, count):
                        return
                    turn.set_result(None)
                waiting.popleft()


class Holding:
    """What one request holds."""

    def __init__(
        self, total: HeldBytes, lane: Lane, expected: int, patience_seconds: float
    ) -> None:
        self._total = total
        self._lane: Lane = lane
        self._patience_seconds = patience_seconds
        self._received = 0
        self.bytes = expected

    async def __aenter__(self) -> Self:
        await self._total.take_in_turn(self._lane, self.bytes, self._patience_seconds)
        return self

    def add(self, count: int) -> None:
        """Count `count` bytes that came.

        Raises:
            ServiceFullError: They were not expected, and do not fit beside those of others.
        """
        self._received += count
        more = self._received - self.bytes
        if more > 0:
            if not self._total.take(self._lane, more):
                raise ServiceFullError(self._total.retry_after_seconds(self._lane))
            self.bytes += more

    def settle(self) -> None:
        """Keep no more than has come: a slow sender fills nobody's memory with promises."""
        self._total.give_back(self.bytes - self._received)
        self.bytes = self._received

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self._total.give_back(self.bytes)
        self._total.count(self._lane, self._received)
