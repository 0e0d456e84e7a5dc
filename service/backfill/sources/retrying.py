"""What an archive that is slow, full or restarting answers costs time, and nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources.options import PeriodOptions

Answer = TypeVar("Answer")


class TransientError(Exception):
    """Another try may succeed; `after_seconds` is what the archive says of when."""

    def __init__(self, detail: str, after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.after_seconds = after_seconds


class RetryOptions(PeriodOptions):
    """Of a source across a network."""

    timeout_seconds: PositiveFloat = 60  # without a byte
    first_delay_seconds: NonNegativeFloat = 0.5  # doubled after each failure, times 0.5 to 1
    max_delay_seconds: PositiveFloat = 30
    # So often an image may fail until the archive is asked whether it gives others; and then again
    max_tries: PositiveInt = 5
    patience_seconds: NonNegativeFloat = 900  # so long an archive may be away, before it is said


class Retry:
    """Tries again with exponential back-off and jitter, until it is known whose fault it is.

    Args:
        options: How often, and how long.
        alive: Asks the archive for anything; what it raises says that it is away.
    """

    def __init__(self, options: RetryOptions, alive: Callable[[], object]) -> None:
        self._options = options
        self._alive = alive
        self._closed = Event()
        self._given: Callable[[], object] | None = None  # how an image was had that was given

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
        """The answer of `attempt`.

        Raises:
            SourceError: None came within the patience.
        """
        return self._run(attempt, lambda: False)

    def of_item(self, attempt: Callable[[], Answer]) -> Answer:
        """The answer of `attempt`, which asks for one image.

        Raises:
            ItemError: `unreadable_file`: it failed `max_tries` times between two moments when the
                archive answered, and gave an image that it had given before.
            SourceError: The archive answers nothing, for longer than its patience.
        """
        answer = self._run(attempt, self._gives)
        self._given = attempt
        return answer

    def answers(self) -> bool:
        """Whether the archive answers anything at all."""
        try:
            self._alive()
        except (TransientError, SourceError):
            return False
        return True

    def _gives(self) -> bool:
        """An archive may list images while all of them are away, as when it has just started."""
        if not self.answers():
            return False
        try:
            if self._given is not None:
                self._given()
        except ItemError:  # that image is gone, or closed to us: this says nothing of others
            return True
        except (TransientError, SourceError):
            return False
        return True

    def _run(self, attempt: Callable[[], Answer], answers: Callable[[], bool]) -> Answer:
        failures = tries = 0  # of which the back-off, and the archive's being there, are counted
        answered = False
        while True:
            self.wait(0)
            try:
                return attempt()
            except TransientError as error:
                last = error
            if not failures:  # what was waited before, as for its hours, is not its fault
                failing_since = time.monotonic()
            failures, tries = failures + 1, tries + 1
            if tries >= self._options.max_tries:
                before, answered, tries = answered, answers(), 0
                if before and answered:
                    raise ItemError("unreadable_file", f"the archive cannot give it: {last}")
            delay = self._delay(tries if answered else failures - 1, last)
            away = time.monotonic() - failing_since + delay
            if away > self._options.patience_seconds and not answered:
                raise SourceError(f"the archive does not answer: {last}") from last
            self.wait(delay)

    def _delay(self, doublings: int, error: TransientError) -> float:
        most = self._options.max_delay_seconds
        doubled = min(self._options.first_delay_seconds * 2.0 ** min(doublings, 30), most)
        return max(doubled * random.uniform(0.5, 1), error.after_seconds or 0)
