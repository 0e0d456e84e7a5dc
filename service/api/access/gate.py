"""Nobody gets in who has no key or token for what is asked, or who sends too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.access.clients import (
    PERMISSIONS,
    Client,
    NotAuthenticatedError,
    NotPermittedError,
    Permission,
)
from service.api.access.keys import PREFIX, Keys
from service.api.access.rates import Rates
from service.api.access.tokens import Tokens
from service.api.paths import BATCH, CLASSIFY, CLIENTS, is_backfill
from service.api.settings import Settings
from service.api.trail import trail_of

GUARDED = "/v1/"  # all that answers from images or the model; the rest says nothing of either
BEARER = "bearer "


@dataclass(frozen=True)
class Access:
    """Who may come in with a key, who with a token, and how much each may send.

    Where there are neither keys nor tokens, anybody may come in, and is known by an address.
    """

    keys: Keys | None
    tokens: Tokens | None
    rates: Rates

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the operator chose.

        Raises:
            KeyFileError: The file of keys cannot be used.
        """
        tokens = None
        if settings.oidc_issuer is not None and settings.oidc_audience is not None:
            tokens = Tokens(
                settings.oidc_issuer,
                settings.oidc_audience,
                settings.oidc_permissions_claim,
                settings.oidc_permission_prefix,
            )
        keys = None if settings.keys is None else Keys(settings.keys)
        return cls(keys, tokens, Rates(settings.max_client_images_per_second))

    async def client_of(self, scope: Scope) -> Client:
        """Who sends this request.

        Raises:
            NotAuthenticatedError, IssuerUnreachableError
        """
        if self.keys is None and self.tokens is None:
            return Client(trail_of(scope).address, frozenset(PERMISSIONS))
        shown = Headers(scope=scope).get("authorization", "")
        if not shown.lower().startswith(BEARER):
            detail = "the header Authorization: Bearer KEY is missing"
            raise NotAuthenticatedError(detail, presented=False)
        shown = shown[len(BEARER) :].strip()
        if self.tokens is None or (self.keys is not None and shown.startswith(PREFIX)):
            assert self.keys is not None  # one of both is there
            return self.keys.client_of(shown)
        return await self.tokens.client_of(shown)


class Gate:
    """ASGI middleware: answers 401, 403 or 429, or passes the request on.

    Args:
        app: What is behind it.
        access: Who may come in.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, send)
            return
        try:
            await self._admit(scope)
        except Exception as error:
            if not problems.kind_of(error).foreseen:
                raise
            await problems.answer_to(error, scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        client = await self._access.client_of(scope)
        trail_of(scope).client = client.name
        if missing := permissions_for(scope) - client.permissions:
            raise NotPermittedError(missing)
        path = scope["path"].rstrip("/")
        if path in {CLASSIFY, BATCH}:
            self._access.rates.check(client.name)
        if path == CLASSIFY:  # a batch's images are counted one by one
            self._access.rates.count(client.name)


def permissions_for(scope: Scope) -> set[Permission]:
    """What a request needs: all that any reading of its query could ask for."""
    path = scope["path"].rstrip("/")
    if path == BATCH or is_backfill(path):
        return {"backfill"}
    if path == CLIENTS:
        return {"admin"}
    if path != CLASSIFY:
        return set()
    lanes = parse_qs(scope["query_string"].decode("latin-1")).get("lane", ["interactive"])
    needed: dict[str, Permission] = {"interactive": "classify", "backfill": "backfill"}
    # An unknown lane is refused further on; nobody learns that without all keys
    return {needed[lane] for lane in lanes} if needed.keys() >= set(lanes) else set(needed.values())
