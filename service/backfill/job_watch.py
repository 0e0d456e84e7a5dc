"""Counts of jobs for the metrics, cached, because a scrape must not wait for a database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread

from service.backfill.job_view import Current, JobView, JobViewState

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0


class Watch:
    """Reads all jobs every second in its own thread, from `start` to `close`.

    Args:
        jobs: Reads all jobs.
        current: Returns the job in progress.
    """

    def __init__(
        self, jobs: Callable[[], list[JobView]], current: Callable[[], Current | None]
    ) -> None:
        self._jobs, self._current = jobs, current
        self._seen: list[JobView] = []
        self._closing = Event()
        self._thread = Thread(target=self._look, name="backfills-look", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._thread.join()

    def images(self, state: str) -> int:
        """Images of the job in progress, up to 1 s old: `found`, `done`, `skipped` or `failed`."""
        return sum(each.job.counts[state] for each in self._seen if each.state == "running")

    def count(self, state: JobViewState) -> int:
        """Jobs in a state, up to 1 s old."""
        return sum(each.state == state for each in self._seen)

    def refused(self, code: str) -> int:
        """Images of the job in progress that were skipped or failed with a code in this run."""
        current = self._current()
        return 0 if current is None else current.work.progress.codes[code]

    def _look(self) -> None:
        while not self._closing.is_set():
            try:
                self._seen = self._jobs()
            except Exception as error:  # noqa: BLE001  # the database may come back
                LOG.error("jobs cannot be counted: %s", type(error).__name__)  # noqa: TRY400
            self._closing.wait(LOOK_SECONDS)
