"""Every request comes in here: it is given its identifier, and when its answer has gone, a line."""

from __future__ import annotations

import logging
import re
import secrets
import time
from http import HTTPStatus
from traceback import format_tb

from opentelemetry.trace import SpanKind, format_trace_id, get_tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.audit import Audit
from service.api.paths import OPERATIONS, name_of
from service.api.trail import TRAIL, Trail

# Others are replaced, as they would be written into logs
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# The pages of the API's description bring scripts and styles within them
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)
# Of every answer
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY),
]

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("cxrview.access")


class Entrance:
    """ASGI middleware, before all others.

    Args:
        app: What is behind it.
        audit: Where images are recorded; None: nowhere.
        access_log: Whether requests are logged.
    """

    def __init__(self, app: ASGIApp, audit: Audit | None, *, access_log: bool) -> None:
        self._app = app
        self._audit = audit
        self._access_log = access_log
        # Without an SDK behind it, this costs some microseconds, and passes a trace's identifier on
        self._tracer = get_tracer("cxrview")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer what nobody foresaw."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = Headers(scope=scope)
        trail = scope[TRAIL] = self._trail_of(scope, headers)
        own = [(b"x-request-id", trail.request_id.encode()), *SECURITY_HEADERS]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                trail.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        name, method = name_of(scope["path"]), scope["method"]
        method = method if method in METHODS else "OTHER"
        context = self._propagator.extract(headers)
        with self._tracer.start_as_current_span(
            f"{method} {name}", context, SpanKind.SERVER, record_exception=False
        ) as span:
            try:
                await self._app(scope, receive, answer)
            except Exception as error:  # noqa: BLE001  # answered, and told to whom it concerns
                LOG.error("request %s: %s", trail.request_id, where(error))  # noqa: TRY400
                if not trail.status:  # or else the answer is on its way, and breaks off
                    await problems.answer_to(error, scope)(scope, receive, answer)
            finally:
                span.set_attributes({"http.route": name, "http.request.method": method})
                span.set_attribute("http.response.status_code", trail.status)
                if self._access_log and name not in OPERATIONS:
                    seconds = time.perf_counter() - begin
                    trace = span.get_span_context().trace_id
                    log(trail, method, name, seconds, format_trace_id(trace) if trace else None)

    def _trail_of(self, scope: Scope, headers: Headers) -> Trail:
        given = headers.get("x-request-id", "")
        request_id = given if ACCEPTED_ID.fullmatch(given) else secrets.token_hex(16)
        address = scope["client"][0] if scope.get("client") else ""
        return Trail(request_id, address, self._audit)


def where(error: Exception) -> str:
    """An error's kind and the lines that led to it; what it says may quote a patient's file."""
    return "".join([type(error).__name__, "\n", *format_tb(error.__traceback__)])


def log(trail: Trail, method: str, path: str, seconds: float, trace_id: str | None) -> None:
    """One line of the access log."""
    status = trail.status or HTTPStatus.INTERNAL_SERVER_ERROR.value
    fields = {
        "request_id": trail.request_id,
        "trace_id": trace_id,
        "client": trail.client or None,
        "address": trail.address or None,
        "method": method,
        "path": path,
        "status": status,
        "code": trail.code or None,
        "seconds": round(seconds, 6),
    }
    text = "%s %s %d %s %.3f s, request %s"
    ACCESS.info(text, method, path, status, trail.code, seconds, trail.request_id, extra=fields)
