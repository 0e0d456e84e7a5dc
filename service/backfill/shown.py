"""How a job is shown to those who ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.backfill.jobs import Job
from service.backfill.work import Work

# waiting: for its turn. As the ledger has it, else
ShownState = Literal["waiting", "running", "paused", "stopped", "cancelled", "done"]


@dataclass(frozen=True)
class Current:
    """What is being worked on."""

    job: str
    work: Work


@dataclass(frozen=True)
class Shown:
    """A job as it is now."""

    job: Job
    state: ShownState
    images_per_second: float | None = None  # while it is worked on
