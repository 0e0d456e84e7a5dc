"""Authentication: the client of a request, by its API key, its token, or its address."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from starlette.datastructures import Headers
from starlette.types import Scope

from service.api.auth.clients import PERMISSIONS, Client, NotAuthenticatedError
from service.api.auth.keys import PREFIX, Keys
from service.api.auth.rates import Rates
from service.api.request_context import context_of
from service.api.settings import Settings

if TYPE_CHECKING:
    from service.api.auth.tokens import Tokens

BEARER = "bearer "


@dataclass(frozen=True)
class Access:
    """API keys, tokens, and the rates of clients.

    If neither keys nor tokens are configured, every client is accepted, and named by its address.
    """

    keys: Keys | None
    tokens: Tokens | None
    rates: Rates

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """From the settings.

        Raises:
            KeyFileError: The file of keys cannot be used.
        """
        tokens = None
        if settings.oidc_issuer is not None and settings.oidc_audience is not None:
            from service.api.auth.tokens import Tokens  # loads an HTTP client

            tokens = Tokens(
                settings.oidc_issuer,
                settings.oidc_audience,
                settings.oidc_permissions_claim,
                settings.oidc_permission_prefix,
            )
        keys = None if settings.keys is None else Keys(settings.keys)
        return cls(keys, tokens, Rates(settings.max_client_images_per_second))

    def watched(self) -> AbstractContextManager[None]:
        """Reload the keys when their file changes, until the block ends."""
        return nullcontext() if self.keys is None else self.keys.watched()

    async def client_of(self, scope: Scope) -> Client:
        """The client that sends this request.

        Raises:
            NotAuthenticatedError: There is no valid key or token.
            IssuerUnreachableError: The issuer's keys cannot be fetched.
        """
        if self.keys is None and self.tokens is None:
            return Client(context_of(scope).address, frozenset(PERMISSIONS))
        shown, *others = Headers(scope=scope).getlist("authorization") or [""]
        if others:
            raise NotAuthenticatedError("more than one header Authorization")
        if not shown.lower().startswith(BEARER):
            detail = "the header Authorization: Bearer KEY is missing"
            raise NotAuthenticatedError(detail, presented=False)
        shown = shown[len(BEARER) :].strip()
        if self.tokens is None or (self.keys is not None and shown.startswith(PREFIX)):
            assert self.keys is not None  # one of the two is configured
            return self.keys.client_of(shown)
        return await self.tokens.client_of(shown)
