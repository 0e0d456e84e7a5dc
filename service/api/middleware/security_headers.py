"""Headers that forbid browsers to store answers, to frame them, or to guess their type."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api.middleware.http import HttpMiddleware, with_headers

# The pages of /docs have inline scripts and styles
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY),
]


class SecurityHeaders(HttpMiddleware):
    """ASGI middleware: adds `SECURITY_HEADERS` to every answer."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self.app(scope, receive, with_headers(send, SECURITY_HEADERS))
