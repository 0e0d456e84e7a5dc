"""The jobs of the service: their ledger, and one folder of results for each."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa

from service.backfill.job_folder import alone, conclude, ledger_in
from service.backfill.ledger.jobs import Job, UnknownJobError
from service.backfill.ledger.ledger import Ledger
from service.backfill.report.write import CERTIFICATE
from service.backfill.results.sinks import RESULTS, SINKS, read_rows

LOG = logging.getLogger(__name__)
OURS = "http "  # prefix of our jobs' keys; the ledger may hold jobs of the command, too
ID = re.compile("[0-9a-f]{32}")
ROWS_AT_ONCE = 1000  # rows that are encoded at a time


class JobStore:
    """The jobs of a folder and their results; locked for other processes until `close`.

    Args:
        folder: Holds the ledger and the jobs' folders.
        url: URL of the ledger; None: a file in the folder.

    Raises:
        BusyError: Another process works on the folder.
        LedgerError: The ledger cannot be opened.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(alone(folder))
            self.ledger = Ledger(url or ledger_in(folder))
            stack.callback(self.ledger.close)
            self._held = stack.pop_all()

    def close(self) -> None:
        """Close the ledger, and unlock the folder."""
        self._held.close()

    def job(self, job: str) -> Job:
        """The job in its current state.

        Raises:
            UnknownJobError: There is none, or the service did not create it.
        """
        if ID.fullmatch(job):  # databases refuse some texts
            with suppress(UnknownJobError):
                found = self.ledger.job(job)
                if found.key.startswith(OURS):
                    return found
        raise UnknownJobError("there is no such job")

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return [job for job in self.ledger.jobs() if job.key.startswith(OURS)]

    def begin(self, job: Job) -> Path:
        """Prepare the folder of a job, without an old certificate; returns the folder."""
        out = self.out(job.id)
        out.mkdir(mode=0o700, exist_ok=True)
        (out / RESULTS).mkdir(exist_ok=True)
        self.reopen(job.id)
        return out

    def reopen(self, job: str) -> None:
        """Delete the job's certificate."""
        (self.out(job) / CERTIFICATE).unlink(missing_ok=True)

    def conclude(self, job: Job) -> None:
        """Write the certificate of a job that is done."""
        certificate = conclude(self.ledger, job, self.out(job.id))
        LOG.info("job %s is done, valid: %s", job.id, certificate.valid)

    def out(self, job: str) -> Path:
        """The folder of a job."""
        return self._folder / job

    def outs(self) -> list[Path]:
        """The folders of all jobs that have begun."""
        return [path for path in self._folder.iterdir() if ID.fullmatch(path.name)]

    def certified(self, job: str) -> bool:
        """Whether the job has its certificate."""
        return (self.out(job) / CERTIFICATE).exists()

    def lines(self, job: str) -> Iterator[bytes]:
        """NDJSON of all published rows, up to `ROWS_AT_ONCE` lines at a time.

        Raises (while iterating):
            PartError, OSError: A part cannot be read.
        """
        folder = self.out(job) / RESULTS
        if not folder.is_dir():
            return
        for batch in read_rows(folder):
            for at in range(0, batch.num_rows, ROWS_AT_ONCE):
                some = pa.Table.from_batches([batch.slice(at, ROWS_AT_ONCE)])
                yield SINKS["ndjson"].encode(some)
