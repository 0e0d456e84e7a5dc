"""Tokens of an identity provider: JSON Web Tokens, checked against the keys that it publishes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from typing import Any

import jwt

from service.api.auth.clients import (
    PERMISSIONS,
    Client,
    IssuerUnreachableError,
    NotAuthenticatedError,
)

# Signatures that only the issuer can make: never `none`, nor a secret that whoever checks shares
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
LEEWAY_SECONDS = 30  # clocks of two machines differ
FRESH_SECONDS = 300.0  # between looks at the issuer's keys
PAUSE_SECONDS = 10.0  # after a look, whatever unknown keys are presented, or when it failed
STALE_SECONDS = 86_400.0  # so long are known keys good while the issuer cannot be reached
TIMEOUT_SECONDS = 5.0
MOST_LETTERS = 128  # of a name, which goes into logs

LOG = logging.getLogger(__name__)


class Tokens:
    """Tokens of one issuer, for one audience.

    A client's name is `oidc:` and the token's `sub`, so that no key has it too.

    Args:
        issuer: Its URL, as in the tokens' `iss`; it says where its keys are (OpenID Connect
            Discovery 1.0).
        audience: What the tokens' `aud` must hold.
        claim: Where permissions are: text with spaces, or a list; dots lead into objects.
        prefix: What stands before a permission there.
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
        """Who was given this token.

        Raises:
            NotAuthenticatedError: Nobody whom this service trusts.
            IssuerUnreachableError
        """
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise NotAuthenticatedError(f"the token is refused: {error}") from None
        granted = set(_words(claims, self._claim))
        permissions = {each for each in PERMISSIONS if self._prefix + each in granted}
        return Client(f"oidc:{claims['sub'][:MOST_LETTERS]}", frozenset(permissions))


def _words(claims: Mapping[str, Any], path: str) -> Iterable[str]:
    found: object = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found.split()
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


class IssuerKeys:
    """The public keys of an issuer, fetched when they are needed, at most every few seconds.

    Args:
        issuer: Its URL.
        now: A clock, in seconds.
    """

    def __init__(self, issuer: str, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._now = now
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = self._tried = -STALE_SECONDS
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """The key of this identifier.

        Raises:
            NotAuthenticatedError: The issuer has none.
            IssuerUnreachableError: Nobody knows.
        """
        now = self._now()
        age = now - self._fetched
        known = kid in self._keys and age < STALE_SECONDS
        if not (known and age < FRESH_SECONDS) and now - self._tried >= PAUSE_SECONDS:
            self._tried = now
            self._fetching = asyncio.create_task(self._fetch(now))
        if known:
            return self._keys[kid]
        if self._fetching is not None:  # one asks for all who wait
            await asyncio.shield(self._fetching)
        if kid in self._keys and now - self._fetched < STALE_SECONDS:
            return self._keys[kid]
        if self._fetched < self._tried:
            detail = "the keys of the identity provider cannot be had"
            raise IssuerUnreachableError(detail, int(PAUSE_SECONDS))
        raise NotAuthenticatedError("the token is signed with a key that its issuer does not have")

    async def _fetch(self, now: float) -> None:
        try:
            found = await asyncio.to_thread(_published_by, self._issuer)
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(found).keys}
        except (OSError, HTTPException, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            LOG.error("no keys from %s: %s", self._issuer, error)  # noqa: TRY400  # it says it all
        else:
            self._fetched = now


def _published_by(issuer: str) -> dict[str, Any]:
    """The issuer's key set, found by its own description of itself."""
    described = _json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if described["issuer"] != issuer:
        raise ValueError(f"it calls itself {described['issuer']}")
    place = described["jwks_uri"]
    return _json(place)


def _json(url: str) -> dict[str, Any]:
    # Its scheme is looked at, before and after it may have led elsewhere
    with urllib.request.urlopen(safe(url), timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        safe(answer.url)
        found = json.load(answer)
    if not isinstance(found, dict):
        raise TypeError(f"{url} is no JSON object")
    return found


def safe(url: str) -> str:
    """This URL, if nobody on the way can change what is there.

    Raises:
        ValueError: Neither https nor on this machine.
    """
    if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise ValueError(f"{url} is not https: anybody on the way could change it")
    return url
