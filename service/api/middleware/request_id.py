"""Give every request an identifier: the client's X-Request-ID, or a new one."""

from __future__ import annotations

import ipaddress
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.audit import Audit
from service.api.middleware.http import HttpMiddleware
from service.api.request_context import CONTEXT, RequestContext

# Other identifiers are replaced, because they are written to logs
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId(HttpMiddleware):
    """ASGI middleware: creates the request's context, and answers with X-Request-ID.

    Args:
        app: The application.
        audit: The audit log; None: no audit log.
    """

    def __init__(self, app: ASGIApp, audit: Audit | None) -> None:
        super().__init__(app)
        self._audit = audit

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if ACCEPTED_ID.fullmatch(given) else secrets.token_hex(16)
        context = scope[CONTEXT] = RequestContext(request_id, address_of(scope), self._audit)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self.app(scope, receive, answer)


def address_of(scope: Scope) -> str:
    """The client's IP address, perhaps as a trusted proxy names it; empty if it is not valid.

    It is normalised, so that one client has one rate however its address is written.
    """
    said = scope["client"][0] if scope.get("client") else ""
    try:
        found = ipaddress.ip_address(said.partition("%")[0])  # drop the zone, which may be any text
    except ValueError:
        return ""
    return str(getattr(found, "ipv4_mapped", None) or found)
