"""What an operator may choose: CXRVIEW_* variables."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Gt
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model_store import DEFAULT_MODEL, DEFAULT_ROOT
from service.api.auth.urls import origin_of, safe
from service.api.logs import LogFormat
from service.backfill.allowed_sources import AllowedSources
from service.dicom.callers import checked_title, parse_callers
from service.inference import Lane, Provider, usable_cpus
from service.uploads.budget import BACKFILL_SHARE
from service.uploads.files import LARGEST_FILE

PREFIX = "CXRVIEW_"


class Settings(BaseSettings):
    """Read once, at start-up, from CXRVIEW_* variables. Units are in the names.

    There is no `port` or `host` here: Kubernetes itself sets CXRVIEW_PORT in every pod beside a
    Service called cxrview. They are options of `cxrview serve`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True)

    model: str = DEFAULT_MODEL
    """The model, as name/version. There is no "latest", so that a rollback is a change."""
    model_store: Path = DEFAULT_ROOT
    """The folder of model versions."""
    provider: Provider = "cpu"
    """Where the network runs: `cpu`, `cuda` or `tensorrt`."""
    allow_cpu_fallback: bool = False
    """Serve from the CPU if the GPU cannot be used. By default, the start fails."""
    engine_cache: Path | None = None
    """The folder in which TensorRT keeps its compiled engines. Without it, every start takes
    minutes.
    """
    inference_threads: NonNegativeInt = 0
    """CPU threads of an ONNX call that runs alone. Several calls run side by side with one thread
    each, which is more efficient. 0: all cores within the CPU limit, or one for a model as small
    as `swift`.
    """
    decode_workers: PositiveInt = Field(default_factory=usable_cpus)
    """Images that are decoded at the same time, for each lane. Default: the cores within the CPU
    limit.
    """

    max_upload_bytes: PositiveInt = LARGEST_FILE
    """The largest image. Uncompressed CR reaches 30 MB; this is twice that."""
    max_batch_body_bytes: PositiveInt = 128 * 2**20
    """The largest batch body; it is held in memory."""
    max_held_bytes: PositiveInt = 256 * 2**20
    """All bodies in memory together; backfill takes three quarters at most. Beyond, bodies wait to
    be read, and then get 503.
    """
    max_archive_entries: PositiveInt = 10_000
    """The most files in a batch."""
    max_archive_bytes: PositiveInt = 2 * 2**30
    """The size of all entries of an archive together, inflated. They are inflated one by one."""
    max_archive_ratio: Annotated[float, Gt(1)] = 200
    """By how much an entry of an archive may inflate."""
    max_receive_idle_seconds: PositiveFloat = 30
    """The longest pause within a body. Beyond: 408."""
    max_receive_seconds: PositiveFloat = 300
    """The longest time for a whole body. Beyond: 408."""
    max_head_bytes: Annotated[int, Ge(4096)] = 2**15
    """The largest request line with its header fields, at least 4 KiB. Beyond: 400; more than 100
    fields: 431. A head that comes in pieces may be up to twice as large.
    """
    max_head_seconds: PositiveFloat = 10
    """The longest time from the start of a connection, or its last answer, to the end of the next
    head. Beyond, the connection is closed.
    """
    max_write_seconds: PositiveFloat = 30
    """A client that reads nothing of its answer for this long is disconnected."""
    max_connections: PositiveInt = 512
    """The most open connections, without those of the operations port; at most half of `ulimit -n`.
    Beyond, the connection that has been idle longest is closed.
    """

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks of proxies, separated by commas. `X-Forwarded-For` and
    `X-Forwarded-Proto` are believed from these only ([access](access.md)).
    """

    keys: Path | None = None
    """A file of API keys. Without keys and issuer the service answers everyone, and listens on the
    loopback address only.
    """
    oidc_issuer: str | None = None
    """The URL of an OpenID Connect identity provider whose tokens are accepted, as in their `iss`.
    """
    oidc_audience: str | None = None
    """The audience that a token must have (`aud`)."""
    oidc_permissions_claim: str = "scope"
    """The claim that holds the permissions; dots lead into objects."""
    oidc_permission_prefix: str = ""
    """The prefix of a permission in that claim."""
    oidc_client_id: Annotated[str, Field(pattern=r"^[!-~]+$")] | None = None
    """The public client of the issuer with which people sign in on the [page](page.md). Without it,
    the page asks for a key or a token.
    """
    oidc_scopes: str = "openid"
    """The scopes that the page asks the issuer for, separated by spaces; one is `openid`."""
    allow_anonymous: bool = False
    """Listen on other addresses without keys or tokens, where a proxy authenticates."""

    max_client_images_per_second: PositiveFloat | None = None
    """The rate of each client. Beyond: 429 with Retry-After. Without it there is no limit."""

    ui: bool = True
    """Serve the [page](page.md) for people at `/`."""

    access_log: bool = False
    """Write a log line for each request; it holds nothing of a patient."""
    log_format: LogFormat = "text"
    """The form of all log lines: `text` or `json`."""
    audit_log: Path | None = None
    """The audit log: who got which answer. A file that is only appended to, or `-` for standard
    output.
    """
    audit_key: Path | None = None
    """A file of at least 32 secret bytes, the key of the hashes of SOP Instance UIDs in the audit
    log.
    """
    tracing: bool = False
    """Send a span for each request to an OpenTelemetry collector; OTEL_* variables say where it is.
    """

    backfill_folder: Path | None = None
    """The folder of jobs on archives ([backfill](backfill.md)), with their ledger and results. One
    process uses it at a time. It needs the extra `backfill`. Without it there are no jobs.
    """
    backfill_sources: Annotated[tuple[str, ...], NoDecode] = ()
    """From where jobs may read, separated by commas: folders, `s3://bucket/prefix`,
    `https://host/path`.
    """
    backfill_ledger: str | None = None
    """The URL of the ledger's database. Default: a file in the folder."""

    calibration_folder: Path | None = None
    """The folder for the images of a [calibration](review.md#calibrate), while it runs. They are of
    patients, so choose one in memory, not on a disk. Without it, the page offers no calibration.
    """
    max_calibration_bytes: PositiveInt = 256 * 2**20
    """All images of one calibration together."""

    destinations: Path | None = None
    """The file of destinations, to which results of DICOM objects are delivered, in TOML. It needs
    the extra `dicom`. Without it no objects are received.
    """
    outbox: str | None = None
    """The URL of the database that keeps results until they are delivered. Default:
    `outbox.sqlite` beside the file of destinations.
    """
    dicom_ae_title: str = "CXRVIEW"
    """The AE title of the DICOM receiver ([receive DICOM](dicom-receive.md))."""
    dicom_callers: Annotated[tuple[str, ...], NoDecode] = ()
    """Who may send to the DICOM receiver, separated by commas: `AE@network`, an AE title, or a
    network. Without it, peers on this machine only.
    """
    dicom_tls_certificate: Path | None = None
    """A certificate in PEM, with which the DICOM receiver speaks TLS only. It is read again after
    it was renewed, as are the two files below.
    """
    dicom_tls_key: Path | None = None
    """The key of that certificate, in PEM without a passphrase."""
    dicom_tls_clients: Path | None = None
    """A file of authorities, in PEM. Peers of the DICOM receiver then need a certificate of one of
    them.
    """
    dicom_lane: Lane = "backfill"
    """The lane of images that arrive by C-STORE. In `backfill`, they use only the time that
    people's requests leave, and wait; in `interactive`, they share a queue with people's requests,
    and are refused where they would take longer than the latency budget.
    """
    dicom_max_associations: PositiveInt = 32
    """The most associations of the DICOM receiver. Beyond, they are rejected for the time being."""

    max_batch_images: PositiveInt = 8
    """The most images in an ONNX call, a power of two. More raise throughput and latency. On a CPU,
    `googlenet` takes 2 at most, as more are no faster.
    """
    max_queue_images: PositiveInt = 256
    """The most images of a lane that wait or are worked on. Beyond: 503 with Retry-After."""
    drain_seconds: NonNegativeFloat = 0
    """How long requests are still answered after SIGTERM, while `/readyz` says 503. Then requests
    in flight are finished, and the process exits with 0, at most 30 s later; connections that it
    has not accepted yet are reset. A second SIGTERM ends it at once. In Kubernetes, choose some
    seconds more than endpoints take to be updated.
    """
    latency_budget_seconds: PositiveFloat = 2
    """The latency budget of an interactive image. One that would take longer gets 503 with
    Retry-After before its body is read.
    """

    @field_validator("max_batch_images")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, as each batch size is warmed; not {value}")
        return value

    @field_validator("backfill_sources", "dicom_callers", "trusted_proxies", mode="before")
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

    @field_validator("dicom_ae_title")
    @classmethod
    def _ae_title(cls, value: str) -> str:
        return checked_title(value)

    @field_validator("dicom_callers")
    @classmethod
    def _callers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_callers(value)
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _safe_url(cls, value: str | None) -> str | None:
        return value if value is None else safe(value)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        """Settings that need each other."""
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("oidc_issuer and oidc_audience go together")
        if (self.audit_log is None) != (self.audit_key is None):
            raise ValueError("audit_log and audit_key go together")
        if self.backfill_folder is None and (self.backfill_sources or self.backfill_ledger):
            raise ValueError("backfill_sources and backfill_ledger are of no use without a folder")
        if self.backfill_folder is not None and not self.backfill_sources:
            raise ValueError("backfill_folder needs backfill_sources, from where jobs may read")
        if self.calibration_folder is not None and self.backfill_folder is None:
            raise ValueError("calibration_folder is of no use without backfill_folder")
        if self.outbox is not None and self.destinations is None:
            raise ValueError("outbox is of no use without destinations")
        if (self.dicom_tls_certificate is None) != (self.dicom_tls_key is None):
            raise ValueError("dicom_tls_certificate and dicom_tls_key go together")
        if self.dicom_tls_clients is not None and self.dicom_tls_certificate is None:
            raise ValueError("dicom_tls_clients is of no use without dicom_tls_certificate")
        return self

    @model_validator(mode="after")
    def _sign_in(self) -> Self:
        """The page signs in with an issuer that its Content Security Policy can name."""
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("oidc_scopes must hold openid")
        if self.oidc_client_id is not None:
            if self.oidc_issuer is None:
                raise ValueError("oidc_client_id is of no use without oidc_issuer")
            origin_of(self.oidc_issuer)
        return self

    @model_validator(mode="after")
    def _one_body_always_fits(self) -> Self:
        """Otherwise it would wait forever."""
        if self.max_upload_bytes > self.max_held_bytes:
            raise ValueError("max_upload_bytes must not exceed max_held_bytes")
        if self.max_batch_body_bytes > BACKFILL_SHARE * self.max_held_bytes:
            raise ValueError(
                f"max_batch_body_bytes must not exceed {BACKFILL_SHARE} max_held_bytes"
            )
        return self
