"""One image takes the short way, past the framework's layers.

Routing, dependencies and exception handlers take as long as receiving a PNG, and Python's lock
with them; and at three times the load, two of three requests are but refusals.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.one_image import classify_one
from service.inference import Lane

CLASSIFY = "/v1/classify"
# Any other query goes on to the route, which checks it, and says what is wrong
LANES_OF_QUERIES: dict[bytes, Lane] = {
    b"": "interactive",
    b"lane=interactive": "interactive",
    b"lane=backfill": "backfill",
}


class Door:
    """ASGI middleware: answers POST /v1/classify, and passes everything else on.

    Args:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        lane = self._lane_of(scope)
        if lane is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await classify_one(Request(scope, receive), lane)
        except Exception as error:
            if problems.kind_of(error).status == HTTPStatus.INTERNAL_SERVER_ERROR:
                raise  # to those who answer and log what nobody foresaw
            response = problems.answer_to(error)
        await response(scope, receive, send)

    @staticmethod
    def _lane_of(scope: Scope) -> Lane | None:
        if scope["type"] != "http" or scope["path"] != CLASSIFY or scope["method"] != "POST":
            return None
        return LANES_OF_QUERIES.get(scope["query_string"])
