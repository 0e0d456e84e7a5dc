"""The ASGI application."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from threading import Event

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.api import backfills, problems, routes
from service.api.access.gate import Access, Gate
from service.api.audit import Audit, AuditError
from service.api.backfills import open_backfills, require_extra
from service.api.door import Door, Refuser
from service.api.entrance import Entrance
from service.api.http_protocol import DRAINING, REFUSE, Refuse
from service.api.ports import Ports
from service.api.runtime import open_runtime
from service.api.settings import Settings
from service.api.tracing import send_traces

# Objects more than there were, before the next search. After every 700, as usual, it took a
# twentieth of the event loop's time; requests leave no circles
GARBAGE = 20_000

# The framework's own spans hold paths and queries, and its logs what errors say: the entrance says
# what may be said
NO_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans"), False)

DESCRIPTION = """Frontal or lateral, from the pixels of a chest radiograph.

PFI is the probability of a frontal image. Not a medical device."""


def create_app(settings: Settings | None = None, operations_port: int | None = None) -> FastAPI:
    """The service.

    Args:
        settings: None: those of the CXRVIEW_* variables.
        operations_port: Where probes and metrics are to be found, and nothing else; None: beside
            all others.

    Raises:
        KeyFileError, AuditError, TracingError, BackfillExtraError: A file, or a package, cannot be
            used.
    """
    settings = settings or Settings()
    require_extra(settings)
    access, audit = Access.of(settings), _audit_of(settings)
    if settings.tracing:
        send_traces()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Refuse | Event]]:
        async with (
            open_runtime(settings) as runtime,
            open_backfills(settings, runtime) as app.state.backfills,
        ):
            app.state.runtime = runtime
            # What is there by now stays; searching all of it for garbage, again and again, would
            # stop everything for tens of milliseconds each time
            gc.freeze()
            gc.set_threshold(GARBAGE)
            state: dict[str, Refuse | Event] = {DRAINING: runtime.draining}
            if not settings.access_log:  # what is refused by the protocol itself has no line there
                state[REFUSE] = Refuser(runtime.admission)
            yield state

    # Hospitals' browsers often reach no CDN, from where FastAPI's own /docs loads its scripts
    app = FastAPIOffline(
        title="cxrview",
        version=version("cxrview"),
        description=DESCRIPTION,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.add_middleware(Door)
    app.add_middleware(Gate, access=access)
    if operations_port is not None:
        app.add_middleware(Ports, operations=operations_port)
    app.add_middleware(Entrance, audit=audit, access_log=settings.access_log)
    app.state.access, app.state.audit = access, audit
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(backfills.router)
    return app


def _audit_of(settings: Settings) -> Audit | None:
    if settings.audit_log is None or settings.audit_key is None:
        return None
    try:
        key = settings.audit_key.read_bytes()
    except OSError as error:
        raise AuditError(f"the key of the audit log cannot be read: {error}") from error
    return Audit(settings.audit_log, key)
