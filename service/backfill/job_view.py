"""How a job is shown to those who ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.backfill.engines.local import LocalEngine
from service.backfill.ledger.jobs import Job

# waiting: for its turn. As the ledger has it, else
JobViewState = Literal["waiting", "running", "paused", "stopped", "cancelled", "done"]


@dataclass(frozen=True)
class Current:
    """What is being worked on."""

    job: str
    work: LocalEngine


@dataclass(frozen=True)
class JobView:
    """A job as it is now."""

    job: Job
    state: JobViewState
    images_per_second: float | None = None  # while it is worked on
