"""Load shedding: under overload, an image is refused before its body is read."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api import problems
from service.api.middleware.http import HttpMiddleware
from service.api.paths import CLASSIFY
from service.api.runtime import Runtime
from service.inference import Lane

# Other queries pass; the route checks them, and reports what is wrong
LANES_OF_QUERIES: dict[bytes, Lane] = {
    b"": "interactive",
    b"lane=interactive": "interactive",
    b"lane=backfill": "backfill",
    b"explain=true": "interactive",
}


class LoadShedding(HttpMiddleware):
    """ASGI middleware: answers POST /v1/classify with 503 while its lane has no free slot.

    It runs before authentication, because a refusal must be cheap. The route reserves the slot, so
    it may still refuse a request that passes here.
    """

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503 with Retry-After."""
        lane = lane_of(scope)
        if lane is not None:
            runtime: Runtime = scope["app"].state.runtime
            if runtime.admission.refuses(lane):
                error = runtime.admission.refusal(lane)
                await problems.answer_to(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def lane_of(scope: Scope) -> Lane | None:
    """The lane of a request for one image; None for any other request."""
    if scope["path"] != CLASSIFY or scope["method"] != "POST":
        return None
    return LANES_OF_QUERIES.get(scope["query_string"])
