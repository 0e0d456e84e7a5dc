"""Headers that forbid browsers to store answers, to frame them, or to guess their type."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth.urls import origin_of
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
OWN_ORIGIN = b"connect-src 'self'"
OPENER = (b"cross-origin-opener-policy", b"same-origin")


def page_policy(issuer: str | None) -> bytes:
    """The policy of the page, which may send to the origin of this issuer, too, to sign in there.

    Raises:
        ValueError: The issuer's host cannot be named in a policy.
    """
    if issuer is None:
        return PAGE_POLICY
    return PAGE_POLICY.replace(OWN_ORIGIN, OWN_ORIGIN + b" " + origin_of(issuer).encode())


class SecurityHeaders(HttpMiddleware):
    """ASGI middleware: adds `SECURITY_HEADERS` to every answer, but to the page's its own policy.

    Args:
        app: The application.
        issuer: URL of the identity provider with which people sign in on the page, if there is one.
    """

    def __init__(self, app: ASGIApp, issuer: str | None = None) -> None:
        super().__init__(app)
        policy = (b"content-security-policy", page_policy(issuer))
        self._page_headers = [*COMMON_HEADERS, policy, OPENER]

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        headers = self._page_headers if is_page(scope["path"]) else SECURITY_HEADERS
        await self.app(scope, receive, with_headers(send, headers))
