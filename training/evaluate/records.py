"""What is found out about a network, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from model_store import Interval, Proportion


class Found(BaseModel):
    """A result is data: it never changes, and a key that this code does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ReliabilityBin(Found):
    """Images whose PFI lies in low..high: what was said, and what was so."""

    low: float
    high: float
    images: int
    mean_pfi: float
    frontal: Proportion


class ReviewBand(Found):
    """The band of PFIs for a person, chosen for a bound on errors among the others."""

    band: Interval
    error_bound: float  # the errors among answers outside the band are to stay below it ...
    confidence: float  # ... with this confidence (one-sided Clopper-Pearson), on `measured_on`
    attained: float  # the upper confidence limit reached outside the band
    measured_on: str
    images: int
    coverage: Proportion  # answered without review, of `measured_on`
