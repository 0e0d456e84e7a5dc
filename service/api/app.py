"""The ASGI application."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from model_store import Store
from service.api import openapi, problems
from service.api.audit import Audit, AuditError
from service.api.auth.access import Access
from service.api.dicom import DicomPort, check_dicom, open_exchange, open_receiver
from service.api.middleware.access_log import AccessLog
from service.api.middleware.draining import Draining
from service.api.middleware.load_shedding import LoadShedding
from service.api.middleware.operations_port import OperationsPort
from service.api.middleware.request_framing import RequestFraming
from service.api.middleware.request_id import RequestId
from service.api.middleware.security_headers import SecurityHeaders
from service.api.middleware.start_errors import StartErrors
from service.api.middleware.trace_context import TraceContext
from service.api.middleware.unforeseen_errors import UnforeseenErrors
from service.api.middleware.unread_body import UnreadBody
from service.api.routes import (
    backfills,
    batch,
    calibrations,
    classify,
    deliveries,
    dicomweb,
    model,
    operations,
    reviews,
)
from service.api.routes.backfills import open_backfills, require_extra
from service.api.routes.calibrations import open_calibrations
from service.api.routes.deliveries import open_deliveries
from service.api.routes.ui import page_router
from service.api.runtime import open_runtime
from service.api.settings import Settings
from service.api.tracing import send_traces

# New objects before a garbage collection. With Python's default of 700 it took a twentieth of the
# event loop's time; requests leave no reference cycles
GARBAGE = 20_000

# The framework's spans hold paths and queries, and its logs hold error messages; ours do not
NO_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans"), False)

DESCRIPTION = """Frontal or lateral, from the pixels of a chest radiograph.

PFI is the probability of a frontal image. Not a medical device."""


def create_app(
    settings: Settings | None = None,
    operations_port: int | None = None,
    dicom_port: DicomPort | None = None,
    *,
    http: bool = True,
) -> FastAPI:
    """The ASGI application of the service.

    Args:
        settings: None: from the CXRVIEW_* variables.
        operations_port: The only port with probes and metrics, and with nothing else; None: they
            are on the same port as the API.
        dicom_port: Where the DICOM receiver listens; None: there is none.
        http: False: without the API, for a process that only receives DICOM.

    Raises:
        DicomSetupError: Objects cannot be received as the settings say.
        KeyFileError, AuditError: A file cannot be used.
        TracingError, BackfillExtraError: A package is missing.
        StoreError: The model version cannot be used.
    """
    settings = settings or Settings()
    require_extra(settings)
    check_dicom(settings, dicom_port)
    model_version = Store(settings.model_store).load(settings.model)
    access, audit = Access.of(settings), _audit_of(settings)
    if settings.tracing:
        send_traces()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_runtime(settings, model_version) as runtime,
            open_backfills(settings, runtime) as app.state.backfills,
            open_calibrations(runtime, app.state.backfills) as app.state.calibrations,
            open_exchange(settings, runtime) as app.state.exchange,
            open_deliveries(app.state.exchange),
            open_receiver(settings, runtime, app.state.exchange, dicom_port, audit),
        ):
            app.state.runtime = runtime
            # Objects that exist now stay; each collection of them would stop the process for tens
            # of milliseconds
            gc.freeze()
            gc.set_threshold(GARBAGE)
            with access.watched():
                yield

    # FastAPI's /docs loads scripts from a CDN, which browsers in hospitals often cannot reach
    app = FastAPIOffline(
        title="cxrview",
        version=version("cxrview"),
        description=DESCRIPTION,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
        redirect_slashes=False,  # redirects would trust the client's Host header
    )
    app.state.access, app.state.audit = access, audit
    _add_middleware(app, settings, audit, operations_port)
    problems.install(app)
    of_jobs = (backfills, reviews, calibrations)
    of_api = (classify, batch, model, dicomweb, deliveries, *of_jobs) if http else ()
    for routes in (*of_api, operations):
        app.include_router(routes.router)
    if http:
        if settings.ui:
            app.include_router(page_router(settings))
        openapi.describe_access(app)
    return app


def _add_middleware(
    app: FastAPI, settings: Settings, audit: Audit | None, operations_port: int | None
) -> None:
    """Add middleware from the innermost to the outermost; a request passes the last one first."""
    app.add_middleware(LoadShedding)
    if operations_port is not None:
        app.add_middleware(OperationsPort, port=operations_port)
    app.add_middleware(RequestFraming)  # before all that read the path, because it may change it
    app.add_middleware(UnforeseenErrors)
    app.add_middleware(Draining)
    app.add_middleware(UnreadBody, settings=settings)
    signs_in = settings.oidc_issuer if settings.oidc_client_id is not None else None
    app.add_middleware(SecurityHeaders, issuer=signs_in)
    if settings.access_log:
        app.add_middleware(AccessLog)
    app.add_middleware(TraceContext)
    app.add_middleware(RequestId, audit=audit)
    app.add_middleware(StartErrors)


def _audit_of(settings: Settings) -> Audit | None:
    if settings.audit_log is None or settings.audit_key is None:
        return None
    try:
        key = settings.audit_key.read_bytes()
    except OSError as error:
        raise AuditError(f"the key of the audit log cannot be read: {error}") from error
    return Audit(settings.audit_log, key)
