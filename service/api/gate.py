"""Nobody gets in who has no key for what is asked."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.door import CLASSIFY
from service.api.keys import (
    PERMISSIONS,
    Keys,
    NotAuthenticatedError,
    NotPermittedError,
    Permission,
)

GUARDED = "/v1/"  # all that answers from images or the model; the rest says nothing of either
BEARER = "bearer "


class Gate:
    """ASGI middleware: answers 401 or 403, or passes the request on.

    Args:
        app: What is behind it.
        keys: Who may come in.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except (NotAuthenticatedError, NotPermittedError) as error:
            await problems.answer_to(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        credentials = Headers(scope=scope).get("authorization", "")
        if not credentials.lower().startswith(BEARER):
            raise NotAuthenticatedError("the header Authorization: Bearer KEY is missing")
        client = self._keys.client_of(credentials[len(BEARER) :].strip())
        missing = permissions_for(scope) - client.permissions
        if missing:
            raise NotPermittedError(f"this key is not for {' and '.join(sorted(missing))}")


def permissions_for(scope: Scope) -> set[Permission]:
    """What a request needs: all that any reading of its query could ask for."""
    path = scope["path"].rstrip("/")
    if path == f"{CLASSIFY}/batch":
        return {"backfill"}
    if path != CLASSIFY:
        return set()
    lanes = parse_qs(scope["query_string"].decode("latin-1")).get("lane", ["interactive"])
    needed: dict[str, Permission] = {"interactive": "classify", "backfill": "backfill"}
    # An unknown lane is refused further on; nobody learns that without all keys
    return {needed[lane] for lane in lanes} if needed.keys() >= set(lanes) else set(PERMISSIONS)
