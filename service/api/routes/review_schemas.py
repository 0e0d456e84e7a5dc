"""Requests and answers of the review API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from model_store import AnsweredView
from service.backfill.ledger.jobs import Job
from service.backfill.ledger.readings import MOST_READERS, Decision, Entry, Readings, Role

if TYPE_CHECKING:
    from service.backfill.review.agreement import Agreement
    from service.backfill.review.review import Summary

# The attributes of a header that claim a view or a body part, as columns of the results
CLAIMS = (
    "view_position", "patient_orientation", "view_code", "described_view", "body_part_examined",
)  # fmt: skip


class ReviewedJob(BaseModel):
    """A job that can be reviewed."""

    id: str
    source: str
    model: str = Field(description="name/version")
    images: int = Field(description="classified")
    ended: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """From the ledger's job."""
        return cls(
            id=job.id,
            source=str(job.description["source"]),
            model=str(job.description["model"]),
            images=job.counts["done"],
            ended=None if job.ended is None else _moment(job.ended),
        )


class ReviewedJobs(BaseModel):
    """All of them."""

    reader: str = Field(description="the name of the client that asks")
    reviews: list[ReviewedJob]


class NewDecision(BaseModel):
    """What a person says about an image."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"instance": 17, "decision": "lateral"}]}
    )

    instance: int = Field(ge=1, lt=2**63, description="the number of the image")
    decision: Decision | None = Field(description="null: take this person's decision back")
    role: Role = Field(
        default="reader", description="`adjudicator`: of an image whose two readers differ"
    )
    reader: str | None = Field(
        default=None,
        max_length=1024,
        description="under whose name; refused if that is not the client that asks, as where "
        "another person has signed in meanwhile. null: the client's",
    )


class StoredDecision(BaseModel):
    """A decision, as it is in the ledger."""

    instance: int
    reader: str
    role: Role
    decision: Decision | None
    time: datetime

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """From the ledger's entry."""
        return cls(
            instance=entry.item,
            reader=entry.reader,
            role=entry.role,
            decision=entry.decision,
            time=_moment(entry.decided),
        )


class ReviewEntry(BaseModel):
    """An image of a worklist."""

    instance: int = Field(description="the number of the image, for decisions and pictures")
    place: int = Field(description="in the worklist; 0 is the first")
    name: str = Field(description="the image's locator in the source")
    reasons: list[str] = Field(description="why a person should see it: header, not_chest, review")
    view: AnsweredView
    pfi: float
    threshold: float
    chest: float | None
    chest_threshold: float | None
    review: bool
    header: dict[str, str] = Field(description="what the header claims, by attribute")
    disagrees: list[str] = Field(description="the attributes that disagree with the answer")
    mine: Decision | None = Field(description="the decision of the person who asks")
    readings: dict[str, Decision] | None = Field(
        description="by reader; null: the person who asks may still be the second one"
    )
    final: Decision | None = Field(description="what is taken for true")
    decided: datetime | None = Field(description="the time of the last decision")

    @classmethod
    def of(cls, row: Mapping[str, Any], found: Readings, reader: str) -> Self:
        """From a row of the worklist, for a reader."""
        told = reader in found.by_reader or len(found.by_reader) >= MOST_READERS
        names = ("instance", "place", "reasons", "view", "pfi", "threshold", "chest", "review")
        return cls(
            **{name: row[name] for name in (*names, "chest_threshold")},
            name=row["locator"],
            header={name: row[name] for name in CLAIMS if row[name] is not None},
            disagrees=row["disagrees"].split(),
            mine=found.by_reader.get(reader),
            readings=dict(found.by_reader) if told else None,
            final=found.final if told else None,
            decided=None if not told or found.decided is None else _moment(found.decided),
        )


class ReviewEntries(BaseModel):
    """Some images of a worklist, in its order."""

    entries: list[ReviewEntry]
    next: int | None = Field(description="`after` for the next ones; null: there are no more")


class ReaderAgreement(BaseModel):
    """How far two readers agree, before any adjudication."""

    readers: tuple[str, str]
    n: int = Field(description="images that both read")
    agreement: float = Field(description="share of n, 0 to 1")
    kappa: float | None = Field(description="Cohen's; null where all labels are one and the same")
    conflicts: int

    @classmethod
    def of(cls, found: Agreement) -> Self:
        """From the agreement that was measured."""
        return cls(**vars(found))


class ReviewSummary(BaseModel):
    """How far the review of a job is."""

    images: int = Field(description="of the worklist")
    reasons: dict[str, int] = Field(description="images by their first reason")
    read: int = Field(description="images that a person has read")
    read_twice: int
    conflicts: int = Field(description="images whose readers differ, without an adjudicator's")
    final: dict[Decision, int] = Field(description="images by what is taken for true")
    readers: dict[str, int] = Field(description="images by reader")
    agreements: list[ReaderAgreement]

    @classmethod
    def of(cls, found: Summary) -> Self:
        """From the review's summary."""
        told = vars(found) | {"agreements": list(map(ReaderAgreement.of, found.agreements))}
        return cls(**told)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
