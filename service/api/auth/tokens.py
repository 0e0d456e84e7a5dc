"""Tokens of an identity provider: JSON Web Tokens, checked against its published keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jwt

from service.api.auth.clients import PERMISSIONS, Client, NotAuthenticatedError
from service.api.auth.issuer import IssuerKeys

LEEWAY_SECONDS = 30  # clocks of two machines differ
MOST_LETTERS = 128  # length of a name, which is logged
# These change the meaning of a token, and none is needed (RFC 7515, 4.1.11; RFC 7797)
REFUSED_FIELDS = {"crit", "b64"}


class Tokens:
    """Tokens of one issuer, for one audience.

    A client's name is `oidc:` and the token's `sub`, so it differs from all names of keys.

    Args:
        issuer: Its URL, as in the tokens' `iss`; its discovery document names its keys (OpenID
            Connect Discovery 1.0).
        audience: The tokens' `aud` must include it.
        claim: The claim with the permissions, a text with spaces or a list; dots separate the
            names of nested objects.
        prefix: Precedes each permission in the claim.
        now: A clock, in seconds.

    References:
        RFC 7519 (JWT), RFC 8725 (its best practices), RFC 9068 (as access tokens).
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        claim: str = "scope",
        prefix: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer, self._audience = issuer, audience
        self._claim, self._prefix = claim, prefix
        self._keys = IssuerKeys(issuer, now)

    async def client_of(self, token: str) -> Client:
        """The client that a token was issued to.

        Raises:
            NotAuthenticatedError: The token is invalid, expired, or from another issuer.
            IssuerUnreachableError: The issuer's keys cannot be fetched.
        """
        with _refusing():
            header = jwt.get_unverified_header(token)
            if found := REFUSED_FIELDS & header.keys():
                raise jwt.InvalidTokenError(f"its header has {min(found)}")
            kid, algorithm = header.get("kid"), str(header.get("alg"))
        key = await self._keys.find(kid, algorithm)
        with _refusing():
            claims = jwt.decode(
                token,
                key,
                [algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        granted = set(_words(claims, self._claim))
        permissions = {each for each in PERMISSIONS if self._prefix + each in granted}
        return Client(f"oidc:{claims['sub'][:MOST_LETTERS]}", frozenset(permissions))


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn every error of the library into a refusal.

    Raises:
        NotAuthenticatedError: The block raised any error.
    """
    try:
        yield
    except jwt.InvalidTokenError as error:
        # ASCII only: the reason may quote the token, and lone surrogates could not be sent
        reason = ascii(str(error))[1:-1]
        raise NotAuthenticatedError(f"the token is refused: {reason}") from None
    except Exception:  # noqa: BLE001  # for example huge numbers, deep nesting
        raise NotAuthenticatedError("the token is refused: it cannot be read") from None


def _words(claims: Mapping[str, Any], path: str) -> Iterable[str]:
    found: object = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found.split()
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
