"""Where results go: the destinations of one TOML file.

Secrets stand in files of their own, never in this one. Paths may be relative to its folder.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from service.dicom.destination_values import (
    AeTitle,
    ExistingFolder,
    HeaderName,
    Hours,
    PlainHeaders,
    ReadableFile,
    Url,
    Window,
)
from service.dicom.instance import Result
from service.inference import Lane

Wanted = Literal["all", "disagreement", "review", "not_chest", "refused"]
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class DestinationsError(Exception):
    """The file cannot be read, or a key of it is wrong; the message names both."""


def _some(results: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
    if not results:  # said here, so that a wrong item is not counted as one that is missing
        raise ValueError("there must be at least 1 item")
    return results


class Destination(BaseModel):
    """What all kinds have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """The table's name in the file."""
    kind: str
    results: Annotated[tuple[Wanted, ...], AfterValidator(_some)] = ("all",)
    """Which results go there: `all` answers, or those that are any of the others. Refusals go there
    only if `refused` is listed.
    """
    lane: Lane = "interactive"
    """`backfill` waits while results are due at a destination of the lane `interactive`."""
    results_per_second: PositiveFloat | None = None
    """The highest rate. None: as fast as the destination answers."""
    hours: Window | None = None
    """Deliver only then, in local time, as "20:00-06:00"."""
    give_up_hours: PositiveFloat = 72
    """A result that has failed for so long becomes a dead letter."""
    keep_days: PositiveFloat = 30
    """How long the record of a delivery is kept after its end, and a dead letter with its payload.
    """
    timeout_seconds: float = Field(default=30, gt=0, le=600)
    """For one attempt, to connect included; of C-STORE, for an association and for each result."""
    first_delay_seconds: PositiveFloat = 1
    """The wait after the first failure; doubled after each, times 0.5 to 1."""
    max_delay_seconds: PositiveFloat = 600
    """The longest wait, if the destination does not ask for a longer one."""

    @model_validator(mode="after")
    def _delays(self) -> Self:
        if self.first_delay_seconds > self.max_delay_seconds:
            raise ValueError("first_delay_seconds must not exceed max_delay_seconds")
        return self

    @property
    def window(self) -> Hours | None:
        """When to deliver; None: always."""
        if self.hours is None:
            return None
        start, _, end = self.hours.partition("-")
        return Hours(time.fromisoformat(start), time.fromisoformat(end))

    def wants(self, result: Result) -> bool:
        """Whether the result goes there."""
        answer = result.classification
        if answer is None:
            return "refused" in self.results
        header = answer.header
        found: dict[Wanted, bool] = {
            "all": True,
            "disagreement": header is not None
            and (header.agrees is False or header.body_part_agrees is False),
            "review": answer.review,
            "not_chest": answer.view == "not_chest",
            "refused": False,
        }
        return any(found[each] for each in self.results)


class TlsDestination(Destination):
    """What all kinds with a connection have in common."""

    tls_ca: ReadableFile | None = None
    """The certificates that the destination's certificate is checked with. Default: the system's.
    """
    tls_certificate: ReadableFile | None = None
    """The client's certificate, with `tls_key`."""
    tls_key: ReadableFile | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self


class CStoreDestination(TlsDestination):
    """An application entity, by C-STORE. It gets a Structured Report."""

    kind: Literal["c-store"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    called_ae_title: AeTitle
    calling_ae_title: AeTitle = "CXRVIEW"
    tls: bool = False

    @model_validator(mode="after")
    def _used(self) -> Self:
        if not self.tls and (self.tls_ca or self.tls_certificate):
            raise ValueError("tls_ca and tls_certificate are of no use without tls = true")
        return self


class HttpDestination(TlsDestination):
    """What all kinds with a URL have in common."""

    url: Url
    user: str | None = None
    """With `password_file`: basic authentication."""
    password_file: ReadableFile | None = None
    token_file: ReadableFile | None = None
    """A bearer token."""
    headers: PlainHeaders = Field(default_factory=dict)
    """More header fields, none of them secret."""
    header_files: dict[HeaderName, ReadableFile] = Field(default_factory=dict)
    """Header fields whose values are secret: the file of each."""

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.user is not None and self.token_file is not None:
            raise ValueError("token_file and user exclude each other")
        return self


class StowDestination(HttpDestination):
    """A DICOMweb server, by STOW-RS. `url` is its base, without `/studies`. It gets an SR."""

    kind: Literal["stow"]


class FhirDestination(HttpDestination):
    """A FHIR R4 server; `url` is its base. It gets an Observation."""

    kind: Literal["fhir"]


class WebhookDestination(HttpDestination):
    """A URL that gets a signed CloudEvent."""

    kind: Literal["webhook"]
    secret_file: ReadableFile
    """At least 16 bytes, the key of the signature; white space around them is not part of it."""
    source: str = Field(default="urn:cxrview", pattern=r"^[!-~]+$")
    """The `source` of its events."""


class FolderDestination(Destination):
    """A folder that gets a file for each Structured Report."""

    kind: Literal["folder"]
    path: ExistingFolder


AnyDestination = Annotated[
    CStoreDestination | StowDestination | FhirDestination | WebhookDestination | FolderDestination,
    Field(discriminator="kind"),
]


class _Destinations(BaseModel):
    model_config = ConfigDict(extra="forbid")

    destinations: dict[str, AnyDestination] = Field(min_length=1)


KINDS: dict[str, type[Destination]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls
    for cls in get_args(get_args(AnyDestination)[0])
}


def read_destinations(path: Path) -> tuple[Destination, ...]:
    """The destinations of a file, in its order.

    Raises:
        DestinationsError: A line for each key that is unknown or wrong. Values are not repeated.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DestinationsError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DestinationsError(f"{path} is not TOML: {error}") from error
    try:
        _name(tables.get("destinations"))
        found = TypeAdapter(_Destinations).validate_python(
            tables, context={"folder": path.absolute().parent}
        )
    except ValidationError as error:
        lines = (f"{path}: {_explained(each, tables)}" for each in error.errors())
        raise DestinationsError("\n".join(lines)) from None
    except ValueError as error:
        raise DestinationsError(f"{path}: {error}") from None
    return tuple(found.destinations.values())


def _name(tables: Any) -> None:
    """Write each table's name into it."""
    if not isinstance(tables, dict):
        return
    for name, table in tables.items():
        if NAME.fullmatch(name) is None:
            raise ValueError(f"destinations.{name!r}: a name has a-z, 0-9, _ and -, at most 63")
        if isinstance(table, dict):
            if "name" in table:
                raise ValueError(f"destinations.{name}.name: the name is that of the table")
            table["name"] = name


def _explained(error: Any, tables: dict[str, Any]) -> str:
    """A key as the file has it, and what is wrong with it."""
    loc = [str(each) for each in error["loc"]]
    if len(loc) > 2 and loc[0] == "destinations":
        del loc[2]  # the kind, by which the schema was chosen
    key, message = ".".join(loc), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such key" + _nearest(loc, tables)
    elif error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        key, message = f"{key}.kind", f"must be one of {', '.join(KINDS)}"
    return f"{key}: {message}"


def _nearest(loc: list[str], tables: dict[str, Any]) -> str:
    known = ["destinations"]
    if len(loc) > 1:
        fields = KINDS[tables["destinations"][loc[1]]["kind"]].model_fields
        known = sorted(fields.keys() - {"name"})
    nearest = difflib.get_close_matches(loc[-1], known, 1)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known: {', '.join(known)}"


def payload(destination: Destination, result: Result) -> bytes:
    """The result in the form that the destination takes; byte-identical each time."""
    match destination:
        case FhirDestination():
            from service.dicom.observation import observation

            return _json(observation(result))
        case WebhookDestination():
            from service.dicom.event import event

            return _json(event(result, destination.source))
    from service.dicom.structured_report import structured_report

    return structured_report(result)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
