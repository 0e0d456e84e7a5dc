"""The local engine: one process works on the images that it leases, chunk by chunk.

When all images of a chunk have an outcome, the engine writes their rows to a file, commits outcomes
and file together in the ledger, and renames the file to its final name. Two chunks are open at a
time, so that decoders have work while one is written.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from threading import Thread

from model_store import ModelCard
from service.backfill.engines.fetching import LOOK_SECONDS, Chunk, Fetchers, Halt, of_model
from service.backfill.engines.stopping import retry_on_full_disk, stop
from service.backfill.ledger.jobs import Job, JobState, Lease, LeaseLostError, Settled
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.folder import FAILURES, Results
from service.backfill.results.rows import Row, Source
from service.inference import Image, Lane

PAUSED: JobState = "paused"
CHUNK_IMAGES = 1000
OPEN_CHUNKS = 2
FOUND_AT_ONCE = 1000
FAILURES_OF_A_PART = 100_000
HELD_BYTES = 256 * 2**20
LEASE_SECONDS = 60.0  # renewed while work goes on; other workers wait so long for a dead one
# An image that was leased when this many workers died is given up as `crashed`
MOST_CRASHES = 4
# The share of failures is checked only after this many outcomes
LEAST_FOR_SHARE = 200

LOG = logging.getLogger(__name__)


class TooManyFailuresError(Exception):
    """More images failed than the operator expects of this archive."""


@dataclass
class Progress:
    """Counts of this run; other threads read them while they change."""

    images: int = 0
    bytes: int = 0
    not_chest: int = 0  # images that are done, and no chest radiographs
    codes: Counter[str] = field(default_factory=Counter)  # of images skipped or failed
    since: float = field(default_factory=time.monotonic)

    @property
    def images_per_second(self) -> float:
        """Mean throughput of this run."""
        return self.images / max(time.monotonic() - self.since, 1e-9)


class LocalEngine:
    """Works on one job until it is done, paused, or stopped by an error.

    Args:
        ledger: The ledger that holds the job.
        job: The job's id.
        source: The archive.
        submit: Submits an image, as `Pipeline.submit`.
        card: The card of the pipeline's model.
        results: Writes the parts.
        lane: `backfill` if interactive requests share the pipeline, else `interactive`.
        fetchers: The number of threads that read files.
        inside: The most images that were read and have no answer yet.
        held_bytes: The most bytes of these images; each fetcher holds one more while it reads.
        max_failed_share: 0..1 of all outcomes; if more images fail, work stops.
        limit: The most images of this run; None: all.
        chunk_images: The most images of one lease, and of one part.
        lease_seconds: See `LEASE_SECONDS`.
    """

    def __init__(
        self,
        ledger: Ledger,
        job: str,
        source: Source,
        submit: Callable[[Image], None],
        card: ModelCard,
        *,
        results: Results,
        lane: Lane = "interactive",
        fetchers: int = 4,
        inside: int = 32,
        held_bytes: int = HELD_BYTES,
        max_failed_share: float = 1.0,
        limit: int | None = None,
        chunk_images: int = CHUNK_IMAGES,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.progress = Progress()
        self.ended = False  # this engine has set the job to `done`
        self._ledger, self._job, self._source = ledger, job, source
        self._id = secrets.token_hex(16)
        self._lists_since: float | None = None  # when it last claimed the listing
        self._none_until = 0.0  # no new lease is asked for until then
        self._card, self._results = card, results
        self._max_failed_share = max_failed_share
        self._left = limit
        self._chunk_images, self._lease_seconds = chunk_images, lease_seconds
        self._halt = Halt()
        self.afterwards = PAUSED  # the job's state after a halt
        limits = {"threads": fetchers, "inside": inside, "held_bytes": held_bytes}
        self._fetchers = Fetchers(source, submit, card, self._halt, lane=lane, **limits)

    def pause(self, state: JobState = "paused") -> None:
        """Stop: images that were fetched are answered and committed, the others given back.

        Args:
            state: The job's state afterwards, if it is not done.
        """
        self.afterwards = state
        self._stop()

    def _stop(self) -> None:
        self._halt.now()
        self._source.close()  # a thread may wait in it for off-peak hours

    def run(self) -> Job:
        """Work until the job is done or paused; returns the job in its new state.

        Raises:
            SourceError: The archive does not answer.
            TooManyFailuresError: The share of failed images exceeds `max_failed_share`.
            Exception: An error of the network or the disk; committed results stay.
        """
        ledger, job = self._ledger, self._job
        try:
            self._results.recover(job, partial(ledger.leases, job), partial(ledger.parts, job))
            ledger.set_state(job, "running")
            self._work()
            found = ledger.job(job)
            if found.complete and not found.open:
                self._end()
            else:
                ledger.set_state(job, self.afterwards)
            return ledger.job(job)
        except Exception as error:
            stop(ledger, job, error)
            raise

    def _work(self) -> None:
        finder = Thread(target=self._find, name="find", daemon=True)
        chunks: list[Chunk] = []
        finder.start()
        self._fetchers.start()
        try:
            while self._goes_on(chunks):
                self._take(chunks)
        finally:
            self._stop()
            self._fetchers.close()
            finder.join()
            for chunk in chunks:  # some are left only after an error
                retry_on_full_disk(partial(self._ledger.release, chunk.lease))
        if self._halt.error is not None:
            raise self._halt.error

    def _find(self) -> None:
        """List the archive into the ledger, or wait until another worker has."""
        try:
            while not self._halt and not self._ledger.job(self._job).complete:
                if self._ledger.claim_listing(self._job, self._id, self._lease_seconds):
                    self._list()
                else:
                    self._halt.wait(self._lease_seconds / 4)
        except Exception as error:  # noqa: BLE001  # raised from `run`
            self._halt.now(error)

    def _list(self) -> None:
        """List the archive; the ledger ignores images that it has already."""
        self._lists_since = time.monotonic()
        try:
            found = iter(self._source.find())
            while some := list(islice(found, FOUND_AT_ONCE)):
                if self._halt:
                    return
                self._ledger.add(self._job, some)
            self._ledger.complete(self._job, getattr(self._source, "left_out", None))
        finally:
            self._lists_since = None
            retry_on_full_disk(partial(self._ledger.release_listing, self._job, self._id))

    def _goes_on(self, chunks: list[Chunk]) -> bool:
        """Lease more images if there are any; False when the job has no open images."""
        while not self._halt and len(chunks) < OPEN_CHUNKS and self._left != 0:
            most = self._chunk_images if self._left is None else min(self._chunk_images, self._left)
            if chunks and time.monotonic() < self._none_until:
                break
            lease = self._ledger.lease(self._job, most, self._lease_seconds)
            if lease is None:  # wait before asking again, not after each answer
                self._none_until = time.monotonic() + LOOK_SECONDS
                break
            if self._left is not None:
                self._left -= len(lease.items)
            if lease.crashes >= MOST_CRASHES:
                self._give_up(lease)
                continue
            chunks.append(Chunk(lease, len(lease.items)))
            self._fetchers.put(chunks[-1])
        if chunks:
            return True
        if self._halt or self._left == 0:
            return False
        job = self._ledger.job(self._job)  # the listing may add images, or other leases expire
        return bool(job.open) or not job.complete

    def _give_up(self, lease: Lease) -> None:
        LOG.error("%d workers died of an image, which is given up", lease.crashes)
        crashed = [Settled(item.number, "failed", "crashed") for item in lease.items]
        self._ledger.commit(lease, crashed, None)
        self.progress.codes["crashed"] += len(crashed)

    def _take(self, chunks: list[Chunk]) -> None:
        self._renew(chunks)
        for answered in self._fetchers.answered():
            chunk = answered.chunk
            chunk.missing -= 1
            if answered.row is not None:
                chunk.rows.append((answered.item, answered.row))
                self.progress.images += 1
                self.progress.bytes += answered.row.bytes or 0
            if not chunk.missing:
                self._commit(chunk)
                chunks.remove(chunk)  # after the commit: if that fails, the lease is released

    def _renew(self, chunks: list[Chunk]) -> None:
        old = time.monotonic() - self._lease_seconds / 4
        for chunk in chunks:
            if chunk.renewed < old:
                chunk.renewed = time.monotonic()
                self._ledger.renew(chunk.lease, self._lease_seconds)
        since = self._lists_since
        if since is not None and since < old:
            self._lists_since = time.monotonic()
            self._ledger.claim_listing(self._job, self._id, self._lease_seconds)

    def _commit(self, chunk: Chunk) -> None:
        """Write the part, commit, publish the part; if the lease is lost, discard the part."""
        rows = self._without_duplicates([row for _, row in chunk.rows])
        kept = [row for row in rows if row.outcome != "failed"]
        part = self._results.write(kept, chunk.lease.id) if kept else None
        settled = [
            Settled(item.number, row.outcome, row.code, row.key if row.outcome == "done" else None)
            for (item, _), row in zip(chunk.rows, rows, strict=True)
        ]
        try:
            self._ledger.commit(chunk.lease, settled, part)
        except LeaseLostError as error:
            LOG.warning("a chunk is thrown away: %s", error)
            if part is not None:
                self._results.discard(part)
            self._ledger.release(chunk.lease)
            return
        if part is not None:
            self._results.publish(part)
        self.progress.codes.update(row.code for row in rows if row.code is not None)
        done = (row for row in rows if row.outcome == "done")
        self.progress.not_chest += sum(row.view == "not_chest" for row in done)
        self._check_failures()

    def _without_duplicates(self, rows: list[Row]) -> list[Row]:
        """Mark as duplicates the images whose key is done already, under any locator."""
        keys = {row.key for row in rows if row.outcome == "done" and row.key is not None}
        seen = self._ledger.known(self._job, keys)
        found = []
        for row in rows:
            again = row.outcome == "done" and row.key in seen
            found.append(replace(row, outcome="skipped", code="duplicate") if again else row)
            if row.outcome == "done" and row.key is not None:
                seen.add(row.key)
        return found

    def _check_failures(self) -> None:
        counts = self._ledger.job(self._job).counts
        settled = sum(counts[each] for each in ("done", "skipped", "failed"))
        share = counts["failed"] / settled if settled else 0.0
        if settled >= LEAST_FOR_SHARE and share > self._max_failed_share:
            raise TooManyFailuresError(
                f"{counts['failed']} of {settled} images failed ({share:.1%}), "
                f"more than {self._max_failed_share:.1%}"
            )

    def _end(self) -> None:
        """Write the rows of failed images, when no image is open any more, and end the job."""
        now = datetime.now(UTC)
        rows = (
            of_model(Row(locator, "failed", code, finished=now, attempts=attempts), self._card)
            for locator, code, attempts in self._ledger.failures(self._job)
        )
        parts = []
        while some := list(islice(rows, FAILURES_OF_A_PART)):
            parts.append(self._results.write(some, f"{FAILURES}{time.time_ns():x}"))
        old = self._ledger.end(self._job, parts)
        self.ended = old is not None
        if old is not None:
            for part in parts:
                self._results.publish(part)
        for part in parts if old is None else old:
            self._results.discard(part)
