"""While the process drains, each connection closes after its next answer."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api.middleware.http import HttpMiddleware, with_headers
from service.api.runtime import Runtime


class Draining(HttpMiddleware):
    """ASGI middleware: adds `Connection: close` to answers while the process drains."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        runtime: Runtime | None = getattr(scope["app"].state, "runtime", None)
        if runtime is not None and runtime.draining.is_set():
            send = with_headers(send, [(b"connection", b"close")])
        await self.app(scope, receive, send)
