"""Answers of the delivery API. They hold no payload."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, Field

from service.dicom import entries
from service.dicom.entries import State


class Delivery(BaseModel):
    """One result for one destination."""

    id: int
    destination: str
    sop_instance_uid: str = Field(description="of the image")
    model: str = Field(description="name/version")
    state: State = Field(
        description="`pending`: waits; `leased`: is being sent; `dead`: no more attempts, unless "
        "it is retried; `dropped`: never to be delivered"
    )
    attempts: int
    code: str | None = Field(description="why the last attempt failed, or `warning`")
    detail: str | None
    created: datetime
    due: datetime | None = Field(
        description="no attempt before; of a leased one: when its lease expires"
    )
    ended: datetime | None

    @classmethod
    def of(cls, found: entries.Delivery) -> Self:
        """As the outbox has it."""
        times = {name: _time(getattr(found, name)) for name in ("created", "due", "ended")}
        return cls.model_validate(vars(found) | times)


class DestinationCounts(BaseModel):
    """Numbers of deliveries of a destination."""

    pending: int
    leased: int
    delivered: int = Field(description="of the last `keep_days`")
    dead: int
    dropped: int
    oldest_seconds: float = Field(description="age of the oldest that is pending or leased, or 0")

    @classmethod
    def of(cls, found: entries.Counts) -> Self:
        """As the outbox has them."""
        return cls(**found.states, oldest_seconds=found.oldest_seconds)


class Deliveries(BaseModel):
    """A page of deliveries, and the numbers of all."""

    deliveries: list[Delivery]
    next: int | None = Field(description="`before` of the next page; null: this is the last")
    counts: dict[str, DestinationCounts] = Field(description="by destination, of all deliveries")


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
