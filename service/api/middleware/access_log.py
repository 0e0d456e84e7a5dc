"""The access log: one line for each request, without data of a patient."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus

from opentelemetry.trace import format_trace_id, get_current_span
from starlette.types import Receive, Scope, Send

from service.api.middleware.http import HttpMiddleware
from service.api.paths import OPERATIONS, method_of, name_of
from service.api.request_context import context_of

LOG = logging.getLogger("cxrview.access")


class AccessLog(HttpMiddleware):
    """ASGI middleware: logs each request after its answer, except for probes and metrics."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it."""
        if scope["path"] in OPERATIONS:
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        try:
            await self.app(scope, receive, send)
        finally:
            _log(scope, time.perf_counter() - begin)


def _log(scope: Scope, seconds: float) -> None:
    context, trace = context_of(scope), get_current_span().get_span_context().trace_id
    fields = {
        "request_id": context.request_id,
        "trace_id": format_trace_id(trace) if trace else None,
        "client": context.client or None,
        "address": context.address or None,
        "method": method_of(scope),
        "path": name_of(scope["path"]),
        "status": context.status or HTTPStatus.INTERNAL_SERVER_ERROR.value,
        "code": context.code or None,
        "seconds": round(seconds, 6),
    }
    text = "%(method)s %(path)s %(status)d %(code)s %(seconds).3f s, request %(request_id)s"
    LOG.info(text, fields | {"code": context.code}, extra=fields)
