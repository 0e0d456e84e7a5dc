"""The options of a PACS with DICOMweb."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt

from service.backfill.sources.rendered import LEAST_SIDE
from service.backfill.sources.request_throttle import OffPeak
from service.backfill.sources.retrying import RetryOptions


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone of this machine: {name!r}") from error
    return name


def _hours(text: str) -> str:
    OffPeak.parse(text)
    return text


def _split(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


Modalities = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")], ...],
    BeforeValidator(_split),
    Field(min_length=1),
]


class DicomwebOptions(RetryOptions):
    """Options of a PACS; `since`, which is required, and `until` apply to Study Date.

    Credentials come from CXRVIEW_DICOMWEB_TOKEN_FILE (read for each request, because tokens
    expire), CXRVIEW_DICOMWEB_TOKEN, or CXRVIEW_DICOMWEB_USER and CXRVIEW_DICOMWEB_PASSWORD.
    """

    modalities: Modalities = ("CR", "DX")
    """Separated by commas, or a list."""
    partition_days: PositiveInt = 1
    """Days of Study Date in one listing, which is held in memory."""
    page_instances: PositiveInt = 500
    """Instances of one page of a listing."""
    # Smaller pictures than the least would be refused one by one
    rendered: Annotated[int, Field(ge=LEAST_SIDE, le=4096)] | None = None
    """Shorter side, in pixels, of pictures that the archive renders. Default: stored instances are
    read.
    """
    rendered_as: Literal["png", "jpeg"] = "png"
    """JPEG is a third as large, and lossy."""
    concurrency: PositiveInt = 4
    """Requests at the same time."""
    requests_per_second: PositiveFloat | None = 10
    """The most requests in a second; null: no limit."""
    off_peak: Annotated[str, AfterValidator(_hours)] | None = None
    """The hours in which the archive is read, for example 19:00-06:00. Default: all."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] | None = None
    """Of these hours, for example Europe/Berlin. Default: that of the service's machine."""
