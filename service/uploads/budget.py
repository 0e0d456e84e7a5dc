"""The byte budget: limits the bytes of request bodies in memory. No upload is written to disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from service.inference import LANES, Lane, UnavailableError

# Backfill may use this share of the budget; the rest is kept free for interactive bodies
BACKFILL_SHARE = 0.75


class ServiceFullError(UnavailableError):
    """Too many bytes of other requests are in memory; `retry_after_seconds` says when to retry."""

    code: ClassVar[str] = "service_full"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many uploads are in memory")
        self.retry_after_seconds = retry_after_seconds


class ByteBudget:
    """The bytes of bodies in memory, over all requests.

    Requests that do not fit queue in order, interactive ones before backfill. Their unread bytes
    stay with their clients.

    Args:
        limit: Bytes. Backfill may use `BACKFILL_SHARE` of it.
        retry_after_seconds: For requests that have queued too long, by lane.
        count: Called with the bytes received of each body, at its end.
    """

    def __init__(
        self,
        limit: int,
        retry_after_seconds: Callable[[Lane], int] = lambda _: 1,
        count: Callable[[Lane, int], None] = lambda _, __: None,
    ) -> None:
        self.limit = limit
        self.reserved = 0
        self.retry_after_seconds = retry_after_seconds
        self.count = count
        self._queues: dict[Lane, deque[tuple[int, asyncio.Future[None]]]] = {
            lane: deque() for lane in LANES
        }

    def reserve(self, lane: Lane, expected: int, patience_seconds: float) -> Reservation:
        """Reserve `expected` bytes for one request until the end of the block.

        Raises (on entering):
            ServiceFullError: They did not fit for `patience_seconds`.
        """
        return Reservation(self, lane, expected, patience_seconds)

    def take(self, lane: Lane, count: int) -> bool:
        """Reserve bytes if they fit now; False if they do not."""
        fits = self.reserved + count <= self.limit * (BACKFILL_SHARE if lane == "backfill" else 1)
        if fits:
            self.reserved += count
        return fits

    def take_if_free(self, lane: Lane, count: int) -> bool:
        """Reserve bytes if they fit now and no request queues; False if not."""
        return not any(self._queues.values()) and self.take(lane, count)

    async def take_in_turn(self, lane: Lane, count: int, patience_seconds: float) -> None:
        """Reserve bytes as soon as they fit, in the order of the queue.

        Raises:
            ServiceFullError: They did not fit for `patience_seconds`.
        """
        if self.take_if_free(lane, count):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[lane].append((count, turn))
        self._wake()
        try:
            async with asyncio.timeout(patience_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # they were reserved at the last moment
                self.release(count)
            if isinstance(error, TimeoutError):
                raise ServiceFullError(self.retry_after_seconds(lane)) from None
            raise

    def release(self, count: int) -> None:
        """Release bytes, and wake requests that fit now."""
        self.reserved -= count
        self._wake()

    def _wake(self) -> None:
        for lane in LANES:
            queue = self._queues[lane]
            while queue:
                count, turn = queue[0]
                if not turn.done():
                    if not self.take(lane, count):
                        return
                    turn.set_result(None)
                queue.popleft()


class Reservation:
    """The bytes that one request may hold."""

    def __init__(
        self, budget: ByteBudget, lane: Lane, expected: int, patience_seconds: float
    ) -> None:
        self._budget = budget
        self._lane: Lane = lane
        self._patience_seconds = patience_seconds
        self._received = self._held = 0
        self.bytes = expected

    async def __aenter__(self) -> Self:
        await self._budget.take_in_turn(self._lane, self.bytes, self._patience_seconds)
        return self

    def add(self, count: int) -> None:
        """Count `count` bytes that were received.

        Raises:
            ServiceFullError: They exceed the reservation, and no more can be reserved.
        """
        if (more := self._missing(count)) and not self._budget.take(self._lane, more):
            raise ServiceFullError(self._budget.retry_after_seconds(self._lane))
        self._add(count, more)

    def add_if_free(self, count: int) -> bool:
        """Like `add`, behind requests that queue; False, without effect, if it would wait."""
        if (more := self._missing(count)) and not self._budget.take_if_free(self._lane, more):
            return False
        self._add(count, more)
        return True

    async def add_in_turn(self, count: int) -> None:
        """Like `add`, but queue for the bytes that are missing.

        Raises:
            ServiceFullError: They did not fit for `patience_seconds`.
        """
        if more := self._missing(count):
            await self._budget.take_in_turn(self._lane, more, self._patience_seconds)
        self._add(count, more)

    def free(self, count: int) -> None:
        """Release received bytes that are no longer in memory."""
        self._held -= count
        self.bytes -= count
        self._budget.release(count)

    def settle(self) -> None:
        """Release bytes that are not received yet, so that a slow sender blocks no memory."""
        self._budget.release(self.bytes - self._held)
        self.bytes = self._held

    def _missing(self, count: int) -> int:
        return max(0, self._held + count - self.bytes)

    def _add(self, count: int, more: int) -> None:
        self._received += count
        self._held += count
        self.bytes += more

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self._budget.release(self.bytes)
        self._budget.count(self._lane, self._received)
