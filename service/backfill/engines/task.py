"""What a worker must know to work on a job, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from model_store import ModelVersion
from service.backfill.engines.local import LocalEngine, Progress
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.folder import Results
from service.backfill.results.rows import Source
from service.backfill.results.sinks import SINKS
from service.inference import Pipeline, Provider, usable_cpus

# Files that wait for a decoder, besides those that are being decoded
AHEAD = 32


@dataclass(frozen=True)
class Task:
    """One job, and how it is to be worked on; it can be sent to another machine."""

    job: str  # its id in the ledger
    ledger: str = field(repr=False)  # URL, which may hold a password
    source: str
    options: Mapping[str, str]  # of the source
    out: Path  # all workers see the same folder there
    format: str
    model: str  # name/version
    model_store: Path
    provider: Provider
    fetchers: int
    max_failed_share: float
    limit: int | None
    chunk_images: int
    lease_seconds: float

    def work(
        self,
        ledger: Ledger,
        source: Source,
        pipeline: Pipeline,
        version: ModelVersion,
        cpus: int = 0,
    ) -> LocalEngine:
        """The work of one worker.

        Args:
            ledger: As it was opened.
            source: As it was opened.
            pipeline: Of the model, at work.
            version: The model.
            cpus: Cores that the pipeline uses; 0: all that there are.
        """
        return LocalEngine(
            ledger,
            self.job,
            source,
            pipeline.submit,
            version.card,
            results=Results(self.out, SINKS[self.format]),
            fetchers=self.fetchers,
            inside=2 * (cpus or usable_cpus()) + AHEAD,
            max_failed_share=self.max_failed_share,
            limit=self.limit,
            chunk_images=self.chunk_images,
            lease_seconds=self.lease_seconds,
        )


class Engine(Protocol):
    """Work on a job: of this process, or of many."""

    @property
    def progress(self) -> Progress:
        """What was done since it began."""

    @property
    def ended(self) -> bool:
        """The job has come to its end here, so that its certificate is to be written."""

    def run(self) -> Job:
        """Work until the job is done, or paused; see `LocalEngine.run`."""

    def pause(self) -> None:
        """Begin nothing more; `run` returns when what was fetched is committed."""
