"""Refusals before anything else: at three times the load, two of three requests end here.

By way of routing and exception handlers a refusal costs a millisecond, which the images that were
let in would miss.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.admission import QueueFullError
from service.inference import Lane

CLASSIFY = "/v1/classify"  # one image
# Any other query goes on to the route, which checks it, and the lane
LANES_OF_QUERIES: dict[bytes, Lane] = {
    b"": "interactive",
    b"lane=interactive": "interactive",
    b"lane=backfill": "backfill",
}


class Door:
    """ASGI middleware: an image for which there is no place is refused before its body is read.

    Args:
        app: What is behind it; `scope["app"].state.runtime` has the places.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503, or pass the request on."""
        lane = self._lane_of(scope)
        if lane is not None:
            try:
                scope["app"].state.runtime.admission.check(lane)
            except QueueFullError as error:
                await problems.answer_to(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    @staticmethod
    def _lane_of(scope: Scope) -> Lane | None:
        if scope["type"] != "http" or scope["path"] != CLASSIFY or scope["method"] != "POST":
            return None
        return LANES_OF_QUERIES.get(scope["query_string"])
