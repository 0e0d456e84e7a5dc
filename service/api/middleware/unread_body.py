"""Read the rest of a body before an answer that closes the connection.

If a connection is closed with unread bytes, TCP resets it, and the client loses the answer.
Python's urllib always sends `Connection: close`, and would not see a 401, 413 or 503 to a large
file.
"""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.body import discard
from service.api.middleware.http import HttpMiddleware
from service.api.request_errors import BodyError
from service.api.settings import Settings

# Answers after which the body cannot be read any more
BROKEN = frozenset({400, 408, 431})


class UnreadBody(HttpMiddleware):
    """ASGI middleware: reads and drops the rest of a body before such an answer.

    A client that has sent `Expect: 100-continue` is answered at once.

    Args:
        app: The application.
        settings: The limits of time and bytes for the rest of the body.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(app)
        self._settings = settings

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        more = True

        async def read() -> Message:
            nonlocal more
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and more and _closes(scope, message):
                with suppress(BodyError):
                    await discard(Request(scope, read), self._settings)
            await send(message)

        await self.app(scope, read, answer)


def _closes(scope: Scope, message: Message) -> bool:
    """Whether the connection closes after this answer, and its client sends the body unasked."""
    if message["status"] in BROKEN or any(name == b"expect" for name, _ in scope["headers"]):
        return False
    fields = [*scope["headers"], *message.get("headers", ())]
    return scope["http_version"] == "1.0" or any(
        name.lower() == b"connection" and b"close" in value.lower() for name, value in fields
    )
