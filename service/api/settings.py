"""What an operator may choose: CXRVIEW_* variables."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Gt
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model_store import DEFAULT_MODEL, DEFAULT_ROOT
from service.api.auth.urls import safe
from service.api.logs import LogFormat
from service.backfill.allowed_sources import AllowedSources
from service.inference import Provider, usable_cpus
from service.uploads.budget import BACKFILL_SHARE

PREFIX = "CXRVIEW_"
# Beside settings: what a backfill's DICOMweb source signs in with, and what tests are told
OTHERS = re.compile(r"CXRVIEW_(DICOMWEB_\w+|TOOLS|SHARED|WHOLE|KILLS|IMAGES)")
# Kubernetes sets these in every pod for each Service, as CXRVIEW_PORT_8000_TCP_ADDR
OF_SERVICES = re.compile(r"CXRVIEW_(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")


class SettingsError(Exception):
    """A variable is unknown, or its value cannot be meant."""


class Settings(BaseSettings):
    """Read once, at start-up, from CXRVIEW_* variables. Units are in the names.

    There is no `port` or `host` here: Kubernetes itself sets CXRVIEW_PORT in every pod beside a
    Service called cxrview. They are options of `cxrview serve`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    model: str = DEFAULT_MODEL  # name/version; never "latest", so that a rollback is a change
    model_store: Path = DEFAULT_ROOT
    provider: Provider = "cpu"
    allow_cpu_fallback: bool = False  # a GPU pod that serves from its CPU should fail, not crawl
    engine_cache: Path | None = None  # what TensorRT compiles in minutes; None: at every start anew
    # As many of each as there are cores within the CPU limit: whichever has work can use them all
    inference_threads: NonNegativeInt = 0  # of the only ONNX call; 0: all cores
    decode_workers: PositiveInt = Field(default_factory=usable_cpus)  # of each lane

    max_upload_bytes: PositiveInt = 64 * 2**20  # one radiograph; uncompressed CR reaches 30 MB
    max_batch_body_bytes: PositiveInt = 128 * 2**20  # one archive or multipart body, held in memory
    max_held_bytes: PositiveInt = 256 * 2**20  # all bodies in memory at once; beyond: 503
    max_archive_entries: PositiveInt = 10_000
    max_archive_bytes: PositiveInt = 2 * 2**30  # all entries of one archive, inflated one by one
    max_archive_ratio: Annotated[float, Gt(1)] = 200  # inflated / deflated of one entry
    max_receive_idle_seconds: PositiveFloat = 30  # without a byte of a body; beyond: 408
    max_receive_seconds: PositiveFloat = 300  # of a whole body; beyond: 408
    max_head_bytes: Annotated[int, Ge(4096)] = 2**15  # of a request's head; beyond: 400
    max_head_seconds: PositiveFloat = 10  # to the end of a head; beyond: the connection is closed
    max_write_seconds: PositiveFloat = 30  # a client that reads nothing of its answer for so long
    max_connections: PositiveInt = 512  # open at once; beyond: the longest idle is closed

    # Proxies, by address or network, whose X-Forwarded-For and -Proto are believed
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()

    # Who may ask for what; neither keys nor an issuer: anybody, on this machine only
    keys: Path | None = None
    oidc_issuer: str | None = None  # the URL of an identity provider, as in its tokens' `iss`
    oidc_audience: str | None = None  # what its tokens' `aud` must hold
    oidc_permissions_claim: str = "scope"  # where permissions are; dots lead into objects
    oidc_permission_prefix: str = ""  # what stands before a permission there
    allow_anonymous: bool = False  # anybody, from anywhere: where something before it asks who

    max_client_images_per_second: PositiveFloat | None = None  # of each client; None: no limit

    access_log: bool = False  # a line a request, without anything of a patient
    log_format: LogFormat = "text"
    audit_log: Path | None = None  # who had which answer; - for standard output; None: nowhere
    audit_key: Path | None = (
        None  # a file of 32 secret bytes or more, for hashes of SOP Instance UIDs
    )
    tracing: bool = False  # send spans to a collector; where it is say OTEL_* variables

    backfill_folder: Path | None = None  # jobs and their results; one process at a time uses it
    # Folders, s3://bucket/prefix, https://host/path, with commas: below these jobs may read
    backfill_sources: Annotated[tuple[str, ...], NoDecode] = ()
    backfill_ledger: str | None = None  # URL of a database; None: a file in the folder

    max_batch_images: PositiveInt = 8  # per ONNX call; more raises throughput and latency
    max_queue_images: PositiveInt = 256  # of each lane, worked on or waiting; beyond: 503
    drain_seconds: NonNegativeFloat = 0  # after SIGTERM: not ready, but still answering
    latency_budget_seconds: PositiveFloat = 2  # an interactive image that would take longer: 503

    @field_validator("max_batch_images")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, as each batch size is warmed; not {value}")
        return value

    @field_validator("backfill_sources", "trusted_proxies", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(filter(None, (each.strip() for each in value.split(","))))
        return value

    @field_validator("backfill_sources")
    @classmethod
    def _places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowedSources(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ipaddress.ip_network(each)
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _nobody_on_the_way(cls, value: str | None) -> str | None:
        return value if value is None else safe(value)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        """What is of no use alone."""
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("oidc_issuer and oidc_audience go together")
        if (self.audit_log is None) != (self.audit_key is None):
            raise ValueError("audit_log and audit_key go together")
        if self.backfill_folder is None and (self.backfill_sources or self.backfill_ledger):
            raise ValueError("backfill_sources and backfill_ledger are of no use without a folder")
        if self.backfill_folder is not None and not self.backfill_sources:
            raise ValueError("backfill_folder needs backfill_sources, from where jobs may read")
        return self

    @model_validator(mode="after")
    def _one_body_always_fits(self) -> Self:
        """Otherwise it would wait for room that can never be there."""
        if self.max_upload_bytes > self.max_held_bytes:
            raise ValueError("max_upload_bytes must not exceed max_held_bytes")
        if self.max_batch_body_bytes > BACKFILL_SHARE * self.max_held_bytes:
            raise ValueError(
                f"max_batch_body_bytes must not exceed {BACKFILL_SHARE} max_held_bytes"
            )
        return self


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process.

    Args:
        environment: Looked through for unknown variables.

    Raises:
        SettingsError: A line for each variable that is unknown or wrong, by its name.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in environment
        if name.startswith(PREFIX)
        and name not in known
        and not OTHERS.fullmatch(name)
        and not OF_SERVICES.fullmatch(name)
    ]
    if unknown:
        raise SettingsError("\n".join(_unknown(name, known) for name in sorted(unknown)))
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explained(error)) from None


def _unknown(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1)
    return f"{name} is no setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _explained(error: ValidationError) -> str:
    """By the variables that are set, and not by the fields that they fill."""
    lines = []
    for each in error.errors(include_url=False):
        message = each["msg"].removeprefix("Value error, ")
        for field in sorted(Settings.model_fields, key=len, reverse=True):
            message = re.sub(rf"(?<![\w.]){field}(?!\w)", PREFIX + field.upper(), message)
        name = "".join(f"{PREFIX}{part}".upper() for part in each["loc"][:1])
        lines.append(f"{name}: {message}" if name else message)
    return "\n".join(lines)
