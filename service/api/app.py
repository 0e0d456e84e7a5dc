"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.api import problems, routes
from service.api.runtime import open_runtime
from service.api.settings import Settings

DESCRIPTION = """Frontal or lateral, from the pixels of a chest radiograph.

PFI is the probability of a frontal image. Not a medical device."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service; without settings, those of the CXRVIEW_* variables."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(settings) as runtime:
            app.state.runtime = runtime
            yield

    # Hospitals' browsers often reach no CDN, from where FastAPI's own /docs loads its scripts
    app = FastAPIOffline(
        title="cxrview", version=version("cxrview"), description=DESCRIPTION, lifespan=lifespan
    )
    problems.install(app)
    app.include_router(routes.router)
    return app
