"""What only those who operate the service need has a port of its own, which nobody else reaches."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.paths import OPERATIONS


class Ports:
    """ASGI middleware: on one port nothing but probes and metrics, on others all but those.

    Args:
        app: What is behind it.
        operations: That port.
    """

    def __init__(self, app: ASGIApp, operations: int) -> None:
        self._app = app
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404."""
        if scope["type"] == "http":
            of_operations = scope["path"] in OPERATIONS
            if of_operations != (scope["server"][1] == self._operations):
                await problems.not_found()(scope, receive, send)
                return
        await self._app(scope, receive, send)
