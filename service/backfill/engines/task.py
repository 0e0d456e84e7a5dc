"""A job's options, as a worker on any machine needs them."""

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

# Files that wait for a decoder, in addition to those being decoded
AHEAD = 32


@dataclass(frozen=True)
class Task:
    """One job and its options; can be pickled and sent to another machine."""

    job: str  # its id in the ledger
    ledger: str = field(repr=False)  # URL, which may hold a password
    source: str
    options: Mapping[str, str]  # of the source
    out: Path  # the same shared folder on all machines
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
        """The engine of one worker.

        Args:
            ledger: The open ledger.
            source: The open source.
            pipeline: A started pipeline of the model.
            version: The model.
            cpus: Cores that the pipeline uses; 0: all that this process may use.
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
    """Works on a job, in this process or in several."""

    @property
    def progress(self) -> Progress:
        """Counts of this run."""

    @property
    def ended(self) -> bool:
        """Whether this engine has set the job to `done`, so that its certificate is due."""

    def run(self) -> Job:
        """Work until the job is done or paused; see `LocalEngine.run`."""

    def pause(self) -> None:
        """Stop; `run` returns when the images that were fetched are committed."""
