"""Probes and metrics on their own port, which a cluster does not expose."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.middleware.http import HttpMiddleware
from service.api.paths import OPERATIONS


class OperationsPort(HttpMiddleware):
    """ASGI middleware: serves probes and metrics on one port only, and nothing else there.

    Args:
        app: The application.
        port: That port.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        super().__init__(app)
        self._port = port

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404."""
        of_operations = scope["path"] in OPERATIONS
        if of_operations != (scope["server"][1] == self._port):
            await problems.not_found()(scope, receive, send)
            return
        await self.app(scope, receive, send)
