"""While the process drains, each connection closes after its next answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.runtime import Runtime


class Draining:
    """ASGI middleware: adds `Connection: close` to answers while the process drains.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        runtime: Runtime | None = getattr(scope["app"].state, "runtime", None)
        draining = scope["type"] == "http" and runtime is not None and runtime.draining.is_set()
        await self._app(scope, receive, answer if draining else send)
