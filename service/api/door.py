"""One image takes the short way, past the framework's layers.

Routing, dependencies and exception handlers take longer than receiving a PNG, and keep Python's
lock meanwhile.
"""

from __future__ import annotations

from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.admission import Admission, QueueFullError
from service.api.entrance import SECURITY_HEADERS
from service.api.one_image import classify_one
from service.api.paths import CLASSIFY
from service.inference import Lane

# Any other query goes on to the route, which checks it, and says what is wrong
LANES_OF_QUERIES: dict[bytes, Lane] = {
    b"": "interactive",
    b"lane=interactive": "interactive",
    b"lane=backfill": "backfill",
}


def lane_of(scope: Scope) -> Lane | None:
    """The lane of a request for one image; None of any other request."""
    if scope["type"] != "http" or scope["path"] != CLASSIFY or scope["method"] != "POST":
        return None
    return LANES_OF_QUERIES.get(scope["query_string"])


def refusal(admission: Admission, scope: Scope) -> Response | None:
    """The answer to an image for which there is no place; None if it may come in."""
    lane = lane_of(scope)
    if lane is None:
        return None
    try:
        admission.check(lane)
    except QueueFullError as error:
        problems.count(error)
        return _response_to(str(error), error.retry_after_seconds)
    return None


@lru_cache(maxsize=1024)  # who is overloaded says the same thing many times a second
def _response_to(detail: str, retry_after_seconds: int) -> Response:
    response = problems.response_to(QueueFullError(detail, retry_after_seconds))
    response.raw_headers.extend(SECURITY_HEADERS)  # nobody else adds them here
    return response


class Door:
    """ASGI middleware: answers POST /v1/classify, and passes everything else on.

    Args:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        lane = lane_of(scope)
        if lane is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await classify_one(Request(scope, receive), lane)
        except Exception as error:
            if not problems.kind_of(error).foreseen:
                raise  # to those who answer and log what nobody foresaw
            response = problems.answer_to(error, scope)
        await response(scope, receive, send)
