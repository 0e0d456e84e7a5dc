"""How many images one client may send."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

# Of its rate may come at once: who sends a study's images together is no burden
BURST_SECONDS = 10.0
# Beyond this the least recently seen client is forgotten: token names and addresses are unbounded
MOST_CLIENTS = 4096


class RateLimitedError(Exception):
    """This client sends more images than one may; `retry_after_seconds` says when to go on."""

    code: ClassVar[str] = "rate_limited"

    def __init__(self, limit: float, retry_after_seconds: int) -> None:
        super().__init__(f"a client may send {limit:g} images/s")
        self.retry_after_seconds = retry_after_seconds


@dataclass
class Usage:
    """What one client has had since it was first seen, or last forgotten."""

    images: int = 0
    limited: int = 0
    due: float = 0.0  # when the images it has had are, at its rate, paid off


class Rates:
    """Counts each client's images, and holds it to its rate (the generic cell rate algorithm).

    Args:
        images_per_second: Of one client; None: as many as it likes.
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
        """Who has come, and is not forgotten."""
        return list(self._clients)

    def of(self, client: str) -> Usage:
        """What a client has had."""
        usage = self._clients.setdefault(client, Usage())
        self._clients.move_to_end(client)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return usage

    def check(self, client: str) -> None:
        """Whether one more image of this client may come.

        Raises:
            RateLimitedError: Not now.
        """
        wait = self._wait_seconds(client)
        if wait > 0:
            self.of(client).limited += 1
            raise RateLimitedError(self._rate, math.ceil(wait))

    def count(self, client: str) -> None:
        """One image has come."""
        usage = self.of(client)
        usage.images += 1
        usage.due = max(usage.due, self._now()) + 1 / self._rate

    async def wait(self, client: str) -> None:
        """Return when one more image may come, which is counted: for work that can wait."""
        while (seconds := self._wait_seconds(client)) > 0:  # noqa: ASYNC110  # time itself is meant
            await asyncio.sleep(seconds)
        self.count(client)

    def _wait_seconds(self, client: str) -> float:
        ahead = self.of(client).due - self._now()
        return ahead + 1 / self._rate - self._burst_seconds
