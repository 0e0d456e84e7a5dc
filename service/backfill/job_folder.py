"""The folder of a job: its lock, its ledger, and the certificate at its end."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path

from service.backfill.engines.stopping import stop
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.ledger import Ledger
from service.backfill.report.certificate import Certificate
from service.backfill.report.write import Known, audit
from service.backfill.results.sinks import RESULTS, PartFile

LEDGER, LOCK = "ledger.sqlite", ".lock"


class BusyError(Exception):
    """Another process works on this folder."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder for this process; the kernel releases the lock when the process ends.

    Raises:
        BusyError: Another process has the lock.
    """
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process works on {folder}") from None
        yield


def ledger_in(folder: Path) -> str:
    """The URL of the SQLite ledger in a folder."""
    return f"sqlite:///{folder.resolve() / LEDGER}"


def conclude(ledger: Ledger, job: Job, out: Path, *, may_be_empty: bool = False) -> Certificate:
    """Write the certificate and the header audit of a job that is done.

    Args:
        ledger: The ledger of the job.
        job: The job in its last state.
        out: The folder of the job.
        may_be_empty: Whether an archive without images is valid.

    Raises:
        OSError: A file cannot be read or written. The job is then `stopped`; resuming it tries
            again.
    """
    parts = [PartFile(*astuple(each)) for each in ledger.parts(job.id)]
    times = (_moment(job.started), _moment(job.ended))
    source = str(job.description.get("source", ""))
    known = Known(job.counts["found"], parts, *times, job.left_out, source, may_be_empty)
    try:
        (out / RESULTS).mkdir(parents=True, exist_ok=True)  # missing if the archive has no images
        return audit(out / RESULTS, out, known)
    except OSError as error:
        stop(ledger, job.id, error)
        raise


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
