"""Options of all sources."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from service.uploads.files import LARGEST_FILE


class OptionsError(ValueError):
    """The text names no source, or an option is unknown or invalid."""

    code: ClassVar[str] = "invalid_source"


class Options(BaseModel):
    """Options of every source. They hold no secrets, so a job may store and show them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_image_bytes: PositiveInt = LARGEST_FILE
    """The largest file; larger ones fail."""


class PeriodOptions(Options):
    """Options of a source that knows the age of its images."""

    since: date | None = None
    """The first day."""
    until: date | None = None
    """The last day, inclusive."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since ({self.since}) is after until ({self.until})")
        return self

    def hold(self, when: datetime) -> bool:
        """Whether a time is within the period, in this machine's time zone."""
        day = when.astimezone().date()
        return (self.since is None or self.since <= day) and (
            self.until is None or day <= self.until
        )
