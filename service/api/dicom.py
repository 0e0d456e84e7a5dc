"""Received DICOM objects: the intake that C-STORE and STOW-RS share, and the DICOM receiver."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING

from service.api import metrics
from service.api.audit import Audit
from service.api.dicom_tls import open_tls, tls_files
from service.api.rejections import Record, recorded
from service.api.request_context import RequestContext
from service.api.runtime import Runtime
from service.api.server import END_SECONDS
from service.api.server import FINISH_SECONDS as HTTP_FINISH_SECONDS
from service.api.settings import Settings
from service.dicom.callers import parse_callers
from service.dicom.stow import OUT_OF_RESOURCES
from service.dicom.tls import TlsFileError
from service.inference import Buffer, Classification, Image, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.dicom.destinations import Destination
    from service.dicom.intake import Intake
    from service.dicom.observers import Counts, Records
    from service.dicom.outbox import Outbox
    from service.dicom.receiver import Listening, Receiver
    from service.dicom.statuses import Reason, Status

LOG = logging.getLogger(__name__)
# For objects in progress when the process stops; the rest of the time that the server has for it
FINISH_SECONDS = END_SECONDS - HTTP_FINISH_SECONDS - 2


class DicomSetupError(Exception):
    """Objects cannot be received as the settings say."""


class PortTakenError(Exception):
    """The port of the DICOM receiver cannot be bound."""


@dataclass(frozen=True)
class DicomPort:
    """Where the DICOM receiver listens."""

    host: str
    port: int  # 0: any free port


@dataclass(frozen=True)
class Exchange:
    """What receives objects and keeps their results."""

    intake: Intake
    outbox: Outbox
    destinations: Sequence[Destination]


def check_dicom(settings: Settings, dicom_port: DicomPort | None) -> None:
    """Check what is needed to receive objects, before the model is loaded.

    Raises:
        DicomSetupError: There are no destinations, or a file or a package is missing.
    """
    if dicom_port is not None and settings.destinations is None:
        raise DicomSetupError("the DICOM receiver needs CXRVIEW_DESTINATIONS, where results go")
    if settings.destinations is None:
        return
    try:
        import_module("service.dicom.intake")
        import_module("service.dicom.receiver")
        import_module("service.dicom.structured_report")
    except ImportError as error:
        detail = f"CXRVIEW_DESTINATIONS needs the extra `dicom`: {error}"
        raise DicomSetupError(detail) from error
    _destinations(settings)
    if dicom_port is not None:
        try:
            tls_files(settings)
        except TlsFileError as error:
            raise DicomSetupError(f"TLS of the DICOM receiver: {error}") from error


@asynccontextmanager
async def open_exchange(settings: Settings, runtime: Runtime) -> AsyncIterator[Exchange | None]:
    """The intake until the block ends; None without destinations.

    Raises:
        OutboxAwayError: The outbox cannot be opened.
    """
    if settings.destinations is None:
        yield None
        return
    from service.dicom.intake import Intake
    from service.dicom.outbox import Outbox

    destinations = _destinations(settings)
    outbox = await asyncio.to_thread(Outbox, _outbox_url(settings))
    intake = Intake(partial(_classify, runtime), runtime.card, outbox, destinations)
    try:
        yield Exchange(intake, outbox, destinations)
    finally:
        await asyncio.to_thread(outbox.close)


@asynccontextmanager
async def open_receiver(
    settings: Settings,
    runtime: Runtime,
    exchange: Exchange | None,
    listening: DicomPort | None,
    audit: Audit | None,
) -> AsyncIterator[None]:
    """Listen for associations until the block ends; then finish the objects in progress.

    Raises:
        PortTakenError: See there.
    """
    if exchange is None or listening is None:
        yield
        return
    from service.dicom.receiver import Listening

    with open_tls(settings) as tls, recorded(audit) as record:
        where = Listening(
            listening.host,
            listening.port,
            settings.dicom_ae_title,
            parse_callers(settings.dicom_callers),
            tls,
        )
        told = _counts(settings, record), _records(audit)
        receiver = _receiver(settings, runtime, exchange, where, told)
        metrics.ASSOCIATIONS.set_function(lambda: receiver.associations)
        receiver.start()
        try:
            yield
        finally:
            await asyncio.to_thread(receiver.close, FINISH_SECONDS)
            metrics.ASSOCIATIONS.set_function(lambda: 0)


def _receiver(
    settings: Settings,
    runtime: Runtime,
    exchange: Exchange,
    where: Listening,
    told: tuple[Counts, Records],
) -> Receiver:
    from service.dicom.receiver import Limits, Receiver, Work

    work = Work(
        exchange.intake,
        settings.dicom_lane,
        runtime.budget,
        runtime.admission.refuses,
        runtime.draining.is_set,
    )
    limits = Limits(
        associations=settings.dicom_max_associations,
        object_bytes=settings.max_upload_bytes,
        request_seconds=settings.max_head_seconds,
        pdu_seconds=settings.max_receive_idle_seconds,
        object_seconds=settings.max_receive_seconds,
        patience_seconds=settings.latency_budget_seconds,
    )
    try:
        return Receiver(where, work, limits, *told)
    except OSError as error:
        detail = f"{where.host}, DICOM port {where.port}: {error.strerror}"
        raise PortTakenError(detail) from error


def _counts(settings: Settings, record: Record) -> Counts:
    from service.dicom.observers import Counts
    from service.dicom.statuses import CODES, REASONS

    for reason in REASONS:
        metrics.ASSOCIATIONS_REJECTED.labels(reason)
    for code in CODES:
        metrics.DICOM_STORED.labels(f"{code:04X}")

    def rejected(reason: Reason, title: str, address: str) -> None:
        metrics.ASSOCIATIONS_REJECTED.labels(reason).inc()
        record(reason, title, address)
        if settings.access_log:  # otherwise any peer could fill the log
            peer = f"{title!r} at {address}" if title else address
            LOG.info("an association of %s is rejected: %s", peer, reason)

    return Counts(rejected, lambda code: metrics.DICOM_STORED.labels(f"{code:04X}").inc())


def _records(audit: Audit | None) -> Records:
    """What the audit log is told of objects; a peer is the client `ae:` and its AE title."""
    from service.dicom.observers import Records

    def context(title: str, address: str) -> RequestContext:
        return RequestContext(secrets.token_hex(16), address, audit, f"ae:{title}")

    def classified(title: str, address: str, answer: Classification) -> None:
        context(title, address).classified(answer)

    def failed(title: str, address: str, status: Status) -> None:
        later = status.code == OUT_OF_RESOURCES  # the peer sends the object again
        http = HTTPStatus.SERVICE_UNAVAILABLE if later else HTTPStatus.UNPROCESSABLE_ENTITY
        context(title, address).failed(status.comment or "internal_error", http)

    return Records(classified, failed)


async def _classify(runtime: Runtime, data: Buffer, lane: Lane) -> Classification:
    with runtime.admission.slot(lane) as slot:
        slot.arrived()
        return await runtime.classify(Image(data, lane), "dicom")


def _destinations(settings: Settings) -> Sequence[Destination]:
    from service.dicom.destinations import DestinationsError, read_destinations

    assert settings.destinations is not None
    try:
        return read_destinations(settings.destinations)
    except DestinationsError as error:
        raise DicomSetupError(str(error)) from error


def _outbox_url(settings: Settings) -> str:
    assert settings.destinations is not None
    path = settings.destinations.absolute().with_name("outbox.sqlite")
    return settings.outbox or f"sqlite:///{path}"
