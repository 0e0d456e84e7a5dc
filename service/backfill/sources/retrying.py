"""Retry requests with exponential back-off while an archive is slow, full or restarting."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Thread
from typing import TypeVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources.options import PeriodOptions

Answer = TypeVar("Answer")


START_SECONDS = 15.0  # for the first answer, before work begins


class TransientError(Exception):
    """Another try may succeed; `after_seconds` is the archive's Retry-After, if any."""

    def __init__(self, detail: str, after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.after_seconds = after_seconds


class RetryOptions(PeriodOptions):
    """Options of a source across a network."""

    timeout_seconds: PositiveFloat = 60
    """The longest wait for a byte."""
    first_delay_seconds: NonNegativeFloat = 0.5
    """Before the second try; doubled after each failure, times 0.5 to 1."""
    max_delay_seconds: PositiveFloat = 30
    """The longest delay between two tries."""
    max_tries: PositiveInt = 5
    """After so many failures of an image, the archive is asked for others; if it returns them, and
    again after as many failures, the image is given up.
    """
    patience_seconds: NonNegativeFloat = 900
    """The archive may be away for so long before the job stops."""


class Retry:
    """Retries with exponential back-off and jitter, and tells a bad image from an absent archive.

    Args:
        options: Numbers of tries, and delays.
        alive: Sends a request for anything; raises if the archive is away.
    """

    def __init__(self, options: RetryOptions, alive: Callable[[], object]) -> None:
        self._options = options
        self._alive = alive
        self._closed = Event()
        self._given: Callable[[], object] | None = None  # the last successful request for an image

    def close(self) -> None:
        """Make every call that waits raise SourceError."""
        self._closed.set()

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            SourceError: The source was closed.
        """
        if self._closed.wait(seconds) if seconds > 0 else self._closed.is_set():
            raise SourceError("the source is closed")

    def of_archive(self, attempt: Callable[[], Answer]) -> Answer:
        """The result of `attempt`, which is not about one image.

        Raises:
            SourceError: It failed for longer than `patience_seconds`.
        """
        return self._run(attempt, lambda: False)

    def of_item(self, attempt: Callable[[], Answer]) -> Answer:
        """The result of `attempt`, which requests one image.

        Raises:
            ItemError: `unreadable_file`: it failed `max_tries` times between two checks in which
                the archive returned an image that it had returned before.
            SourceError: The archive was away for longer than `patience_seconds`.
        """
        answer = self._run(attempt, self._gives)
        self._given = attempt
        return answer

    def check(self) -> None:
        """Ask the archive once.

        Raises:
            SourceError: It does not answer, or not within START_SECONDS.
        """
        asked: Future[object] = Future()

        def ask() -> None:
            try:
                asked.set_result(self._alive())
            except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
                asked.set_exception(error)

        Thread(target=ask, name="check-source", daemon=True).start()
        try:
            asked.result(START_SECONDS)
        except TimeoutError:
            raise SourceError(f"it did not answer within {START_SECONDS:.0f} s") from None
        except TransientError as error:
            raise SourceError(str(error)) from error

    def answers(self) -> bool:
        """Whether the archive answers any request."""
        try:
            self._alive()
        except (TransientError, SourceError):
            return False
        return True

    def _gives(self) -> bool:
        """Whether the archive returns images: after a start it may list them before it can."""
        if not self.answers():
            return False
        try:
            if self._given is not None:
                self._given()
        except ItemError:  # only that image is gone or forbidden
            return True
        except (TransientError, SourceError):
            return False
        return True

    def _run(self, attempt: Callable[[], Answer], answers: Callable[[], bool]) -> Answer:
        failures = tries = 0  # in all, and since the last check of the archive
        answered = False
        while True:
            self.wait(0)
            try:
                return attempt()
            except TransientError as error:
                last = error
            if not failures:  # a wait for off-peak hours does not count
                failing_since = time.monotonic()
            failures, tries = failures + 1, tries + 1
            if tries >= self._options.max_tries:
                before, answered, tries = answered, answers(), 0
                if before and answered:
                    raise ItemError("unreadable_file", f"the archive cannot give it: {last}")
            delay = self._delay(tries if answered else failures - 1, last)
            away = time.monotonic() - failing_since + delay
            if away > self._options.patience_seconds and not answered:
                raise SourceError(str(last)) from last
            self.wait(delay)

    def _delay(self, doublings: int, error: TransientError) -> float:
        most = self._options.max_delay_seconds
        doubled = min(self._options.first_delay_seconds * 2.0 ** min(doublings, 30), most)
        return max(doubled * random.uniform(0.5, 1), error.after_seconds or 0)
