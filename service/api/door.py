"""One image takes the short way, past the framework's layers.

Routing, dependencies and exception handlers take longer than receiving a PNG, and keep Python's
lock meanwhile.
"""

from __future__ import annotations

from functools import lru_cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.admission import Admission, QueueFullError
from service.api.entrance import SECURITY_HEADERS
from service.api.http_protocol import Answer, answer_of
from service.api.one_image import classify_one
from service.api.paths import CLASSIFY
from service.inference import Lane, let_go

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


# The same, as a request's first line has it
LANES_OF_TARGETS: dict[bytes, Lane] = {
    CLASSIFY.encode() + (b"?" + query if query else b""): lane
    for query, lane in LANES_OF_QUERIES.items()
}


class Refuser:
    """Answers at once those for whose image there is no place; see `Refuse`.

    Args:
        admission: Knows whether there is one.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        # Who is overloaded says the same thing many times a second
        self._answer = lru_cache(maxsize=1024)(self._new_answer)
        self._refused = problems.counter_of(QueueFullError)

    def __call__(self, method: bytes, target: bytes) -> Answer | None:
        """The answer; None to whatever is no image, or may come in."""
        lane = LANES_OF_TARGETS.get(target) if method == b"POST" else None
        if lane is None or not self._admission.refuses(lane):
            return None
        self._refused.inc()
        ahead, seconds = self._admission.images(lane), self._admission.retry_after_seconds(lane)
        return self._answer(lane, ahead, seconds)

    def _new_answer(self, lane: Lane, _ahead: int, _seconds: int) -> Answer:
        response = problems.response_to(self._admission.refusal(lane))
        response.raw_headers.extend(SECURITY_HEADERS)  # nobody else adds them here
        return answer_of(response)


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
            let_go(error)
        await response(scope, receive, send)
