"""What the ledger stores: jobs, their images, leases and parts, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from service.database.schema import AwayError

JobState = Literal["running", "paused", "stopped", "cancelled", "done"]


class LedgerError(Exception):
    """A base class: the ledger refuses or fails."""


class LedgerAwayError(LedgerError, AwayError):
    """The database is locked or full, or does not answer."""

    code: ClassVar[str] = "ledger_away"


class JobConflictError(LedgerError):
    """A job with this key exists, with another description."""

    code: ClassVar[str] = "job_conflict"


class UnknownJobError(LedgerError):
    """There is no job with this id."""

    code: ClassVar[str] = "unknown_job"


class JobStateError(LedgerError):
    """The job's state does not allow this."""

    code: ClassVar[str] = "job_state"


class BackfillsDisabledError(Exception):
    """The service runs without backfill jobs."""

    code: ClassVar[str] = "backfills_disabled"


class LeaseLostError(LedgerError):
    """Another worker has these images now; the caller must discard its results."""


def own_ids(job: str) -> str:
    """What the ids of a job's leases begin with, and so the names of its parts."""
    return job[:8]


def model_of(description: Mapping[str, Any]) -> str:
    """The model of a job, with the beginning of its weights' hash, for people."""
    return f"{description['model']} (SHA-256 {description['model_sha256'][:8]}...)"


@dataclass(frozen=True)
class Job:
    """One archive and one model."""

    id: str
    key: str  # unique; a second request with the same key gets the same job
    description: Mapping[str, Any]
    state: JobState
    complete: bool  # the listing of the archive is complete
    counts: Mapping[str, int]  # found, done, skipped, failed
    created: float  # this and the next two: seconds since 1970
    started: float | None
    ended: float | None
    reason: str | None  # why the job was stopped
    left_out: Mapping[str, int] | None = None  # what the listing left out, by reason; None: unknown

    @property
    def open(self) -> int:
        """The number of images found without an outcome yet."""
        return self.counts["found"] - sum(
            self.counts[each] for each in ("done", "skipped", "failed")
        )


@dataclass(frozen=True)
class Item:
    """One leased image."""

    number: int
    locator: str
    attempts: int  # including this one


@dataclass(frozen=True)
class Lease:
    """Images that belong to one worker until the lease expires."""

    id: str
    job: str
    items: tuple[Item, ...]
    crashes: int = 0  # how often their worker died before


@dataclass(frozen=True)
class Settled:
    """The outcome of one image."""

    number: int
    state: Literal["done", "skipped", "failed"]
    code: str | None = None
    key: str | None = None  # only of images that are done; unique within a job


@dataclass(frozen=True)
class Part:
    """A file of results."""

    name: str
    rows: int
    bytes: int
    sha256: str
