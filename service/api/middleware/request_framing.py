"""Normalise request targets, and refuse heads with ambiguous or too many fields."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api import problems
from service.api.middleware.http import HttpMiddleware
from service.api.request_errors import AmbiguousLengthError, HeadError, HeadTooLargeError

MAX_HEAD_FIELDS = 100  # browsers behind two proxies send about 40


class RequestFraming(HttpMiddleware):
    """ASGI middleware: removes scheme and host from a target; answers 431 or 400 to bad heads."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if (error := _fault(scope)) is not None:
            await problems.answer_to(error, scope)(scope, receive, send)
            return
        # RFC 9112 3.2.2: a target may name scheme and host, as for a proxy
        if scope["path"].startswith(("http://", "https://")):
            scope["path"] = "/" + scope["path"].partition("://")[2].partition("/")[2]
        await self.app(scope, receive, send)


def _fault(scope: Scope) -> HeadError | None:
    fields = scope["headers"]
    if len(fields) > MAX_HEAD_FIELDS:
        return HeadTooLargeError(
            f"the head has {len(fields)} fields; the limit is {MAX_HEAD_FIELDS}"
        )
    names = {name for name, _ in fields}
    if {b"transfer-encoding", b"content-length"} <= names:
        return AmbiguousLengthError("both Transfer-Encoding and Content-Length")
    return None
