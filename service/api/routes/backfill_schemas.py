"""Requests and answers of the backfill API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field

from service.backfill.sources.kinds import SourceKind, option_schemas

if TYPE_CHECKING:
    from service.backfill.job_view import JobView

State = Literal["waiting", "running", "paused", "stopped", "cancelled", "done"]
IMAGE_STATES = ("found", "done", "skipped", "failed")
Option = bool | int | float | str | None | list[str]


class NewBackfill(BaseModel):
    """A new job: the archive and its options."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"source": "/archive/2025", "format": "parquet", "max_errors": 0.01}]
        },
    )

    source: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="folder, list (.csv, .parquet), .zip or .tar by its path; s3://bucket/prefix; "
        "https:// address of DICOMweb; below what CXRVIEW_BACKFILL_SOURCES allows"
    )
    options: dict[str, Option] = Field(
        default={},
        description="of the source, by name; each kind of source, the title of its schema here, "
        "has its own",
        json_schema_extra={"anyOf": cast("Any", option_schemas())},
    )
    format: Literal["parquet", "ndjson", "csv"] = Field(
        default="parquet", description="of the files of results in the service's folder"
    )
    max_errors: float = Field(
        default=1.0, ge=0, le=1, description="share of images; where more fail, the job stops"
    )


class Counts(BaseModel):
    """Numbers of images of a job."""

    found: int = Field(description="so far, until `all_found`")
    done: int
    skipped: int
    failed: int
    open: int = Field(description="found, and without an outcome yet")


class Backfill(BaseModel):
    """A backfill job."""

    id: str
    state: State = Field(
        description="`waiting`: for its turn; `stopped`: it cannot go on, and `reason` says why"
    )
    source: str
    options: dict[str, Any]
    format: str
    max_errors: float
    model: str = Field(description="name/version")
    all_found: bool = Field(description="everything in the archive has been found")
    counts: Counts
    codes: dict[str, int] | None = Field(
        description="images skipped or failed, by code; null in lists and answers to changes"
    )
    images_per_second: float | None = Field(description="of this run, while it runs")
    eta_seconds: float | None = Field(description="until its end; null until all is found")
    created: datetime
    started: datetime | None
    ended: datetime | None
    reason: str | None

    @classmethod
    def of(cls, shown: JobView, codes: Mapping[str, int] | None = None) -> Self:
        """From the ledger's job and the current run."""
        job, rate = shown.job, shown.images_per_second
        wanted = job.description
        return cls(
            id=job.id,
            state=shown.state,
            **{name: wanted[name] for name in ("source", "options", "format", "max_errors")},
            model=wanted["model"],
            all_found=job.complete,
            counts=Counts(**job.counts, open=job.open),
            codes=None if codes is None else dict(codes),
            images_per_second=rate,
            eta_seconds=job.open / rate if rate and job.complete else None,
            created=_moment(job.created),
            started=None if job.started is None else _moment(job.started),
            ended=None if job.ended is None else _moment(job.ended),
            reason=job.reason,
        )


class Backfills(BaseModel):
    """All jobs."""

    backfills: list[Backfill]


class SourceRoot(BaseModel):
    """A folder or address below which jobs may read."""

    root: str
    kinds: list[SourceKind] = Field(description="of the sources there may be")


class SourceRoots(BaseModel):
    """All of them."""

    sources: list[SourceRoot]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
