"""Limit the requests to an archive, so that its clinical users do not notice them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as clock_time
from threading import BoundedSemaphore, Lock
from typing import NamedTuple, Self

LONGEST_WAIT_SECONDS = 60.0  # then the clock is read again: it may have been set


class OffPeak(NamedTuple):
    """Hours of each day; if the end is before the start, they include midnight."""

    start: clock_time
    end: clock_time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text such as `19:00-06:00`.

        Raises:
            ValueError: It is not two different times of a day.
        """
        start, dash, end = text.partition("-")
        found = cls(clock_time.fromisoformat(start), clock_time.fromisoformat(end))
        if not dash or found.start == found.end or found.start.tzinfo or found.end.tzinfo:
            raise ValueError(f"not two times of a day, as 19:00-06:00: {text!r}")
        return found

    def seconds_until_open(self, now: datetime) -> float:
        """Seconds until the hours begin, 0 within them.

        Args:
            now: With a time zone, whose daylight saving time is respected.
        """
        at = now.time()
        if self.start < self.end:
            within = self.start <= at < self.end
        else:
            within = at >= self.start or at < self.end
        if within:
            return 0
        day = now.date() + timedelta(days=at >= self.start)
        opening = datetime.combine(day, self.start, now.tzinfo)
        return max(opening.timestamp() - now.timestamp(), 1)


class RequestThrottle:
    """Limits requests by number, by rate, and to hours of the day.

    Args:
        concurrency: The most requests at the same time.
        per_second: The most requests a second, evenly spaced; None: no limit.
        off_peak: The hours in which requests may begin; None: always.
        zone: The time zone of `off_peak`; None: this machine's.
        wait: Sleeps so many seconds; may raise to end the wait.
    """

    def __init__(
        self,
        concurrency: int,
        per_second: float | None,
        off_peak: OffPeak | None,
        zone: tzinfo | None,
        wait: Callable[[float], None],
    ) -> None:
        self._places = BoundedSemaphore(concurrency)
        self._interval = 1 / per_second if per_second else 0.0
        self._off_peak = off_peak
        self._zone = zone
        self._wait = wait
        self._lock = Lock()
        self._next = 0.0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wait until a request may begin; the block makes it."""
        with self._places:
            self._wait_for_hours()
            self._wait(self._my_turn() - time.monotonic())
            yield

    def pause(self, seconds: float) -> None:
        """Let no request begin for so many seconds, because the archive asked for it."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def _my_turn(self) -> float:
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._interval
        return turn

    def _wait_for_hours(self) -> None:
        while self._off_peak is not None:
            now = datetime.now(UTC).astimezone(self._zone)
            seconds = self._off_peak.seconds_until_open(now)
            if not seconds:
                return
            self._wait(min(seconds, LONGEST_WAIT_SECONDS))
