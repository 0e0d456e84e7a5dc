"""Bytes of received data sets, in the byte budget that all uploads share."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress

from service.inference import Lane
from service.uploads.budget import ByteBudget, ServiceFullError

# Reserved at a time, because threads must ask the event loop: at first, and as many as there are
# already, up to the most
RESERVED_STEP_BYTES = 2**20
MAX_STEP_BYTES = 2**22

LOOP_SECONDS = 10.0  # for the event loop to come to it


class Account:
    """Bytes of the budget, which lives in the event loop, for a thread.

    Args:
        budget: Shared with all other uploads.
        lane: Of the images.
        patience_seconds: How long bytes may wait until they fit.
        loop: Of the budget.
    """

    def __init__(
        self,
        budget: ByteBudget,
        lane: Lane,
        patience_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._budget, self._lane, self._loop = budget, lane, loop
        self._patience_seconds = patience_seconds
        self._reserved = 0

    def cover(self, count: int) -> bool:
        """Reserve until `count` bytes are covered; blocks. False: they do not fit."""
        while self._reserved < count:
            step = self._step(count - self._reserved)
            asked = self._budget.take_in_turn(self._lane, step, self._patience_seconds)
            taken: Future[None] = asyncio.run_coroutine_threadsafe(asked, self._loop)
            try:
                taken.result(self._patience_seconds + LOOP_SECONDS)
            except (ServiceFullError, TimeoutError):
                taken.cancel()
                return False
            self._reserved += step
        return True

    def _step(self, needed: int) -> int:
        wanted = max(RESERVED_STEP_BYTES, min(self._reserved, MAX_STEP_BYTES))
        return max(needed, min(wanted, self._budget.limit - self._reserved))

    def release(self, received: int) -> None:
        """Release all bytes; `received` of them had arrived."""
        count, self._reserved = self._reserved, 0
        with suppress(RuntimeError):  # the loop has ended, and the process ends
            self._loop.call_soon_threadsafe(self._budget.release, count)
            self._loop.call_soon_threadsafe(self._budget.count, self._lane, received)
