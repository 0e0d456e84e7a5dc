"""One span for each request, in the client's trace (W3C Trace Context)."""

from __future__ import annotations

from opentelemetry.trace import SpanKind, get_tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.middleware.http import HttpMiddleware
from service.api.paths import method_of, name_of
from service.api.request_context import context_of


class TraceContext(HttpMiddleware):
    """ASGI middleware: opens a span. Without an OpenTelemetry SDK it costs microseconds.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self._tracer = get_tracer("cxrview")
        self._propagator = TraceContextTextMapPropagator()

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on within its span."""
        name, method = name_of(scope["path"]), method_of(scope)
        parent = self._propagator.extract(Headers(scope=scope))
        with self._tracer.start_as_current_span(
            f"{method} {name}", parent, SpanKind.SERVER, record_exception=False
        ) as span:
            try:
                await self.app(scope, receive, send)
            finally:
                span.set_attributes({"http.route": name, "http.request.method": method})
                span.set_attribute("http.response.status_code", context_of(scope).status)
