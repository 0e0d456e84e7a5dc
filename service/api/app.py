"""The ASGI application."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from threading import Event

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.api import problems, routes
from service.api.door import Door, refusal
from service.api.gate import Gate
from service.api.keys import Keys
from service.api.ports import Ports
from service.api.runtime import open_runtime
from service.api.settings import Settings
from service.api.wire import DRAINING, REFUSE, Refuse

# Objects more than there were, before the next search. After every 700, as usual, it took a
# twentieth of the event loop's time; what requests leave in circles is small
GARBAGE = 20_000

DESCRIPTION = """Frontal or lateral, from the pixels of a chest radiograph.

PFI is the probability of a frontal image. Not a medical device."""


def create_app(settings: Settings | None = None, operations_port: int | None = None) -> FastAPI:
    """The service.

    Args:
        settings: None: those of the CXRVIEW_* variables.
        operations_port: Where probes and metrics are to be found, and nothing else; None: beside
            all others.

    Raises:
        KeyFileError: The file of keys cannot be used.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Refuse | Event]]:
        async with open_runtime(settings) as runtime:
            app.state.runtime = runtime
            # What is there by now stays; searching all of it for garbage, again and again, would
            # stop everything for tens of milliseconds each time
            gc.freeze()
            gc.set_threshold(GARBAGE)
            yield {REFUSE: partial(refusal, runtime.admission), DRAINING: runtime.draining}

    # Hospitals' browsers often reach no CDN, from where FastAPI's own /docs loads its scripts
    app = FastAPIOffline(
        title="cxrview", version=version("cxrview"), description=DESCRIPTION, lifespan=lifespan
    )
    app.add_middleware(Door)
    if settings.keys is not None:
        app.add_middleware(Gate, keys=Keys(settings.keys))
    if operations_port is not None:
        app.add_middleware(Ports, operations=operations_port)
    problems.install(app)
    app.include_router(routes.router)
    return app
