"""Rate limits: how many images a second one client may send."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

# A client may send the images of so many seconds at once, for example a study
BURST_SECONDS = 10.0
# Beyond this the least recently seen client is forgotten: token names and addresses are unbounded
MOST_CLIENTS = 4096


class RateLimitedError(Exception):
    """The client exceeds its rate; it may send again after `retry_after_seconds`."""

    code: ClassVar[str] = "rate_limited"

    def __init__(self, limit: float, retry_after_seconds: int) -> None:
        super().__init__(f"a client may send {limit:g} images/s")
        self.retry_after_seconds = retry_after_seconds


@dataclass
class Usage:
    """The counts of one client since it was first seen, or last forgotten."""

    images: int = 0
    limited: int = 0  # requests refused because of its rate
    due: float = 0.0  # when a client at its rate would send the next image (theoretical arrival)


class Rates:
    """Counts each client's images, and limits their rate (generic cell rate algorithm).

    Args:
        images_per_second: The rate of one client; None: no limit.
        now: A clock, in seconds.
    """

    def __init__(
        self, images_per_second: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = images_per_second or math.inf
        self._burst_seconds = max(BURST_SECONDS, 1 / self._rate)
        self._now = now
        self._clients: OrderedDict[str, Usage] = OrderedDict()

    @property
    def seen(self) -> list[str]:
        """The names of the clients that are counted."""
        return list(self._clients)

    def of(self, client: str) -> Usage:
        """The counts of a client."""
        usage = self._clients.setdefault(client, Usage())
        self._clients.move_to_end(client)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return usage

    def check(self, client: str) -> None:
        """Check that a client may send one more image.

        Raises:
            RateLimitedError: It exceeds its rate.
        """
        wait = self._wait_seconds(client)
        if wait > 0:
            self.of(client).limited += 1
            raise RateLimitedError(self._rate, math.ceil(wait))

    def count(self, client: str) -> None:
        """Count one image."""
        usage = self.of(client)
        usage.images += 1
        usage.due = max(usage.due, self._now()) + 1 / self._rate

    async def wait(self, client: str) -> None:
        """Wait until one more image is within the rate, and count it: for work that can wait."""
        while (seconds := self._wait_seconds(client)) > 0:  # noqa: ASYNC110  # time itself is meant
            await asyncio.sleep(seconds)
        self.count(client)

    def _wait_seconds(self, client: str) -> float:
        ahead = self.of(client).due - self._now()
        return ahead + 1 / self._rate - self._burst_seconds
