"""How jobs are, for metrics: those are asked for in the event loop, which waits for no database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread

from service.backfill.job_view import Current, JobView, JobViewState

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0


class Watch:
    """Looks at all jobs every second, in a thread of its own, from `start` to `close`.

    Args:
        jobs: Asks for them.
        current: The one that is being worked on.
    """

    def __init__(
        self, jobs: Callable[[], list[JobView]], current: Callable[[], Current | None]
    ) -> None:
        self._jobs, self._current = jobs, current
        self._seen: list[JobView] = []
        self._closing = Event()
        self._thread = Thread(target=self._look, name="backfills-look", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._thread.join()

    def images(self, state: str) -> int:
        """Images of the job at work, as of a second ago: `found`, `done`, `skipped` or `failed`."""
        return sum(each.job.counts[state] for each in self._seen if each.state == "running")

    def count(self, state: JobViewState) -> int:
        """Jobs in a state, as of a second ago."""
        return sum(each.state == state for each in self._seen)

    def refused(self, code: str) -> int:
        """Images of the job at work that were skipped or failed in this run, by their code."""
        current = self._current()
        return 0 if current is None else current.work.progress.codes[code]

    def _look(self) -> None:
        while not self._closing.is_set():
            try:
                self._seen = self._jobs()
            except Exception as error:  # noqa: BLE001  # it may come back
                LOG.error("jobs cannot be counted: %s", type(error).__name__)  # noqa: TRY400
            self._closing.wait(LOOK_SECONDS)
