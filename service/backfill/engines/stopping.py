"""Record why a job stops, even when the disk is full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.backfill.ledger.jobs import LedgerAwayError
from service.backfill.results.atomic_files import UnwritableError

if TYPE_CHECKING:
    from service.backfill.ledger.ledger import Ledger

LOG = logging.getLogger(__name__)


def stop(ledger: Ledger, job: str, error: Exception) -> None:
    """Set a job to `stopped`, with the reason, until an operator resumes it."""
    retry_on_full_disk(lambda: ledger.set_state(job, "stopped", reason_of(error)))


def retry_on_full_disk(write: Callable[[], None]) -> None:
    """Write to the ledger while a job stops; on a full disk, the ledger frees its emergency space.

    If the write still fails, it is logged and not raised, so that it does not hide the error that
    stops the job. The job then stays `running`, and its next run continues from the last commit.
    """
    again = True
    while again:
        try:
            write()
        except LedgerAwayError as error:
            again = error.retryable
            if not again:
                LOG.error("a job that stops cannot say so: %s", error)  # noqa: TRY400
        else:
            return


def reason_of(error: Exception) -> str:
    """An error in words for the operator."""
    if isinstance(error, OSError) and not isinstance(error, UnwritableError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
