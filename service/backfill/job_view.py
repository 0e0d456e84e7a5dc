"""A job as the API shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.backfill.engines.local import LocalEngine
from service.backfill.ledger.jobs import Job

# The ledger's states, and `waiting`: for its turn
JobViewState = Literal["waiting", "running", "paused", "stopped", "cancelled", "done"]


@dataclass(frozen=True)
class Current:
    """The job in progress, and its engine."""

    job: str
    work: LocalEngine


@dataclass(frozen=True)
class JobView:
    """A job in its current state."""

    job: Job
    state: JobViewState
    images_per_second: float | None = None  # None if it is not in progress
