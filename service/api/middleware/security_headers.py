"""Headers that forbid browsers to store answers, to frame them, or to guess their type."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api.middleware.http import HttpMiddleware, with_headers
from service.api.paths import is_page

# The pages of /docs have inline scripts and styles
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)
# The page at / runs and styles by its own files only, sends to its own origin only, and makes no
# markup of text
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
COMMON_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
SECURITY_HEADERS = [*COMMON_HEADERS, (b"content-security-policy", POLICY)]
PAGE_HEADERS = [
    *COMMON_HEADERS,
    (b"content-security-policy", PAGE_POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class SecurityHeaders(HttpMiddleware):
    """ASGI middleware: adds `SECURITY_HEADERS` to every answer, or `PAGE_HEADERS` to the page's."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        headers = PAGE_HEADERS if is_page(scope["path"]) else SECURITY_HEADERS
        await self.app(scope, receive, with_headers(send, headers))
