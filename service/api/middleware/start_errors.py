"""Log why the process cannot serve in one line, without the framework's traceback."""

from __future__ import annotations

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.dicom import PortTakenError
from service.dicom.entries import OutboxError
from service.inference import NetworkError

# They say themselves what is wrong
TOLD = (NetworkError, OutboxError, PortTakenError)


class StartErrors:
    """ASGI middleware for the lifespan: some errors say themselves what is wrong.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass all on."""

        async def told(message: Message) -> None:
            error = sys.exc_info()[1]
            failed = message["type"] == "lifespan.startup.failed"
            if failed and isinstance(error, TOLD):  # the framework tells it while it raises
                message["message"] = str(error)
            await send(message)

        await self.app(scope, receive, told if scope["type"] == "lifespan" else send)
