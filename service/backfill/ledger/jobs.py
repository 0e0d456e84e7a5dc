"""What the ledger stores: jobs, their images, leases and parts, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

JobState = Literal["running", "paused", "stopped", "cancelled", "done"]


class LedgerError(Exception):
    """The ledger cannot do this."""


class LedgerAwayError(LedgerError):
    """The database is locked or full, or does not answer.

    Args:
        detail: The reason, in words for the operator.
        retryable: A second try may succeed, because emergency space was freed.
    """

    code: ClassVar[str] = "ledger_away"

    def __init__(self, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.retryable = retryable


class JobConflictError(LedgerError):
    """There is another job of this key, with other contents."""

    code: ClassVar[str] = "job_conflict"


class UnknownJobError(LedgerError):
    """There is no job of this id."""

    code: ClassVar[str] = "unknown_job"


class JobStateError(LedgerError):
    """This cannot be done with a job in its state."""

    code: ClassVar[str] = "job_state"


class BackfillsDisabledError(Exception):
    """The service works on no archives."""

    code: ClassVar[str] = "backfills_disabled"


class LeaseLostError(LedgerError):
    """Others have these images now; what was made of them must be thrown away."""


@dataclass(frozen=True)
class Job:
    """One archive and one model."""

    id: str
    key: str  # unique; a second request with the same key gets the same job
    description: Mapping[str, Any]
    state: JobState
    complete: bool  # everything in the archive has been found
    counts: Mapping[str, int]  # found, done, skipped, failed
    created: float  # seconds since 1970, as the others
    started: float | None
    ended: float | None
    reason: str | None  # why it was stopped
    left_out: Mapping[str, int] | None = None  # of the archive, by reason; None: not known

    @property
    def open(self) -> int:
        """Images that were found, and have no outcome yet."""
        return self.counts["found"] - sum(
            self.counts[each] for each in ("done", "skipped", "failed")
        )


@dataclass(frozen=True)
class Item:
    """One image, as it was leased."""

    number: int
    locator: str
    attempts: int  # this one included


@dataclass(frozen=True)
class Lease:
    """Images that belong to one worker for a while."""

    id: str
    job: str
    items: tuple[Item, ...]
    crashes: int = 0  # of workers that had them before


@dataclass(frozen=True)
class Settled:
    """What one image came to."""

    number: int
    state: Literal["done", "skipped", "failed"]
    code: str | None = None
    key: str | None = None  # of those that are done: no two have the same


@dataclass(frozen=True)
class Part:
    """A file of results."""

    name: str
    rows: int
    bytes: int
    sha256: str
