"""What all sources may be told."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator


class OptionsError(ValueError):
    """This names no source, or one of its options is unknown or cannot be meant."""

    code: ClassVar[str] = "invalid_source"


class Options(BaseModel):
    """Of every source. They hold no secrets, so they may be stored with a job, and shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_image_bytes: PositiveInt = 64 * 2**20  # more is no radiograph, and would fill the memory


class PeriodOptions(Options):
    """Of a source that knows how old its images are."""

    since: date | None = None  # the first day
    until: date | None = None  # the last day, all of it

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since ({self.since}) is after until ({self.until})")
        return self

    def hold(self, when: datetime) -> bool:
        """Whether this moment is within, by the clock of this machine."""
        day = when.astimezone().date()
        return (self.since is None or self.since <= day) and (
            self.until is None or day <= self.until
        )
