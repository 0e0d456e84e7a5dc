"""Jobs of a running service: one at a time, in the order in which they were created.

The state of all jobs is in the ledger only. After a crash, the next process that opens the same
folder continues them.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from pydantic import ValidationError

from model_store import ModelCard
from service.backfill.allowed_sources import AllowedSources
from service.backfill.engines.local import LocalEngine
from service.backfill.engines.stopping import stop
from service.backfill.job_store import OURS, JobStore
from service.backfill.job_view import Current, JobView, JobViewState
from service.backfill.job_watch import Watch
from service.backfill.ledger.jobs import Job, JobConflictError, JobState, JobStateError, model_of
from service.backfill.results.folder import Results
from service.backfill.results.rows import Source
from service.backfill.results.sinks import SINKS
from service.backfill.review.review import Review
from service.backfill.sources.opening import open_source
from service.backfill.sources.options import Options, OptionsError
from service.inference import Image

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0  # before another try after an error, for example of the ledger
FETCHERS = 4


class Manager:
    """Works on jobs in its own thread, from `start` to `close`.

    Args:
        folder: Holds the ledger and the jobs' folders; only one process may use it.
        url: URL of the ledger; None: a file in the folder.
        allowed: The roots that jobs may read from.
        submit: Submits an image, as `Pipeline.submit`.
        card: The card of the pipeline's model.
        inside: The most images of a job that were read and have no answer yet.
        max_image_bytes: The largest file; a job may set a lower limit.

    Raises:
        BusyError: Another process uses the folder.
        LedgerError: The ledger cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        url: str | None,
        allowed: AllowedSources,
        submit: Callable[[Image], None],
        card: ModelCard,
        *,
        inside: int,
        max_image_bytes: int,
    ) -> None:
        self._allowed = allowed
        self._submit, self._card = submit, card
        model = f"{card.name}/{card.version}"
        self._model = {"model": model, "model_sha256": card.model_sha256}
        self._inside, self._max_image_bytes = inside, max_image_bytes
        self._current: Current | None = None
        self._changed, self._closing = Condition(), Event()
        self._store = JobStore(folder, url)
        self._ledger = self._store.ledger
        self._thread = Thread(target=self._work, name="backfills", daemon=True)
        self.watch = Watch(self.jobs, lambda: self._current)
        self.review = Review(self._store, self._open)

    def start(self) -> None:
        """Start the thread; jobs that ran or waited when the last process ended continue."""
        self._thread.start()
        self.watch.start()

    def close(self) -> None:
        """Commit the images that were fetched; the next process continues with the others."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            current = self._current
            if current is not None and self._ledger.job(current.job).state == "running":
                current.work.pause("running")
        self._thread.join()
        self.watch.close()
        self.review.close()
        self._store.close()

    def create(self, key: str | None, wanted: Mapping[str, Any]) -> JobView:
        """The job with this key, created if there is none; without a key, a new job.

        Args:
            key: A second request with the same key gets the same job.
            wanted: `source`, `options`, `format` and `max_errors`.

        Raises:
            SourceNotAllowedError: Jobs may not read from this source.
            OptionsError, SourceError: The source cannot be opened.
            JobConflictError: The job with this key has another source, other options, or another
                model.
        """
        self._open(wanted).close()
        description = dict(wanted) | self._model
        with self._changed:
            try:
                job = self._ledger.open_job(OURS + (key or secrets.token_hex(16)), description)
            except JobConflictError:
                detail = "the job of this key has another source, other options, or another model"
                raise JobConflictError(detail) from None
            self._changed.notify_all()
        return self._shown(job)

    def job(self, job: str) -> JobView:
        """The job in its current state.

        Raises:
            UnknownJobError: There is none.
        """
        return self._shown(self._store.job(job))

    def jobs(self) -> list[JobView]:
        """All jobs, the newest first."""
        return [self._shown(job) for job in self._store.jobs()]

    def codes(self, job: str) -> dict[str, int]:
        """Numbers of a job's images that were skipped or failed, by code."""
        return self._ledger.codes(job)

    def pause(self, job: str) -> JobView:
        """Pause a job; images in progress are finished and committed.

        Raises:
            UnknownJobError: There is none.
            JobStateError: Its state does not allow it.
        """
        return self._halt(job, "paused", {"waiting", "running", "paused"})

    def cancel(self, job: str) -> JobView:
        """Cancel a job for good; its results so far stay.

        Raises:
            UnknownJobError: There is none.
            JobStateError: Its state does not allow it.
        """
        fitting: set[JobViewState] = {"waiting", "running", "paused", "stopped", "cancelled"}
        return self._halt(job, "cancelled", fitting)

    def resume(self, job: str) -> JobView:
        """Queue a job that was paused or stopped.

        Raises:
            UnknownJobError: There is none.
            JobStateError: Its state does not allow it.
        """
        with self._changed:
            self._state(job, {"waiting", "running", "paused", "stopped"}, "resumed")
            return self._queue(job)

    def retry_failed(self, job: str) -> JobView:
        """Queue a job again with its failed images.

        Raises:
            UnknownJobError: There is none.
            JobStateError: Its state does not allow it, for example because it is in progress.
        """
        with self._changed:
            shown = self.job(job)
            if not shown.job.counts["failed"]:
                return shown
            self._state(job, {"waiting", "paused", "stopped", "done"}, "retried")
            if self._current is not None and self._current.job == job:
                raise JobStateError("the job is still pausing")
            self._queue(job)  # first, so that after a crash here no job is done with open images
            self._store.reopen(job)
            self._ledger.retry_failed(job)
            return self.job(job)

    def results(self, job: str) -> Iterator[bytes]:
        """NDJSON of all published rows, some lines at a time.

        Raises:
            UnknownJobError: There is none.
            PartError, OSError: While iterating, a part cannot be read.
        """
        self._store.job(job)
        return self._store.lines(job)

    def report(self, job: str, name: str) -> Path:
        """A file of the certificate or of the header audit, by its path in the job's folder.

        Raises:
            UnknownJobError: There is no such job.
            JobStateError: The job is not done.
        """
        if self.job(job).state != "done":
            raise JobStateError("certificate and header audit are written when the job is done")
        return self._store.out(job) / name

    def _shown(self, job: Job) -> JobView:
        current = self._current
        if current is not None and current.job == job.id:
            going = job.state in {"running", "done"}  # `done`: its certificate is being written
            rate = current.work.progress.images_per_second if going else None
            return JobView(job, "running" if going else job.state, rate)
        if job.state == "running" or (job.state == "done" and not self._store.certified(job.id)):
            return JobView(job, "waiting")
        return JobView(job, job.state)

    def _state(self, job: str, fitting: set[JobViewState], what: str) -> None:
        state = self.job(job).state
        if state not in fitting:
            raise JobStateError(f"a job that is {state} cannot be {what}")

    def _halt(self, job: str, state: JobState, fitting: set[JobViewState]) -> JobView:
        with self._changed:
            self._state(job, fitting, state)
            found = self._store.job(job)
            if found.state == "done":  # its certificate is being written
                raise JobStateError(f"a job that is done cannot be {state}")
            if found.state != state:
                self._ledger.set_state(job, state)
            if self._current is not None and self._current.job == job:
                self._current.work.pause(state)
            return self.job(job)

    def _queue(self, job: str) -> JobView:
        if self._store.job(job).state != "running":
            self._ledger.set_state(job, "running")
            if self._current is not None and self._current.job == job:  # it is still pausing
                self._current.work.pause("running")
        self._changed.notify_all()
        return self.job(job)

    def _open(self, wanted: Mapping[str, Any]) -> Source:
        source, options = self._allowed.check(wanted["source"], wanted["options"])
        asked = options.setdefault("max_image_bytes", self._max_image_bytes)
        with suppress(ValidationError):  # `open_source` raises it with its reason
            if Options(max_image_bytes=asked).max_image_bytes > self._max_image_bytes:
                raise OptionsError(f"max_image_bytes: at most {self._max_image_bytes} here")
        return open_source(source, options)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                job = self._next()
                if job is not None:
                    self._do(job)
            except Exception as error:  # noqa: BLE001  # for example the ledger's database is away: try again
                LOG.error("jobs wait: %s", type(error).__name__)  # noqa: TRY400
                self._closing.wait(LOOK_SECONDS)

    def _next(self) -> Job | None:
        """The oldest waiting job; if there is none, wait for a change and return None."""
        with self._changed:
            waiting = [job for job in self._store.jobs() if self._shown(job).state == "waiting"]
            if not waiting and not self._closing.is_set():
                self._changed.wait()
            return waiting[-1] if waiting else None

    def _do(self, job: Job) -> None:
        """Work on a job until it is done and certified, halted, or stopped by an error."""
        try:
            if job.state == "running":
                job = self._worked(job)
            if job.state == "done":
                self._store.conclude(job)
        except Exception as error:  # noqa: BLE001  # it becomes the job's `reason`
            LOG.error("job %s is stopped: %s", job.id, type(error).__name__)  # noqa: TRY400
            stop(self._ledger, job.id, error)
        finally:
            self._current = None

    def _worked(self, job: Job) -> Job:
        wanted = job.description
        if wanted != {**wanted, **self._model}:
            began, running = model_of(wanted), model_of(self._model)
            raise JobStateError(f"it was begun with {began}, and this is {running}")
        out = self._store.begin(job)
        self._ledger.take_back(job.id)  # no other process has the folder, so no worker is alive
        source = self._open(wanted)
        work = LocalEngine(
            self._ledger,
            job.id,
            source,
            self._submit,
            self._card,
            results=Results(out, SINKS[wanted["format"]]),
            lane="backfill",
            fetchers=FETCHERS,
            inside=self._inside,
            held_bytes=FETCHERS * self._max_image_bytes,
            max_failed_share=wanted["max_errors"],
        )
        try:
            with self._changed:
                if self._closing.is_set() or self._store.job(job.id).state != "running":
                    return self._store.job(job.id)
                self._current = Current(job.id, work)
            work.run()
        finally:
            source.close()
        with self._changed:  # the last request during the run decides the state
            found = self._store.job(job.id)
            if found.state not in {"done", work.afterwards}:
                self._ledger.set_state(job.id, work.afterwards)
            return self._store.job(job.id)
