"""The public keys of an identity provider, fetched within limits of time, size and type."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.api.auth.clients import IssuerUnreachableError, NotAuthenticatedError
from service.api.auth.urls import safe

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
Keys = dict[tuple[str | None, str], PublicKey]  # by identifier and algorithm

# Only asymmetric signatures: never `none`, nor HMAC, whose secret the service would share
OF_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
OF_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
OF_ED25519 = ("EdDSA",)
RSA_BITS = range(2048, 8192 + 1)  # smaller keys are weak (RFC 7518, 3.3); larger ones are slow

FRESH_SECONDS = 300.0  # known keys are fetched again after this time
PAUSE_SECONDS = 10.0  # the least time between two fetches, also for unknown keys and after failures
STALE_SECONDS = 86_400.0  # known keys stay valid so long while the issuer cannot be reached
FETCH_SECONDS = 5.0  # for both documents, from the first connection to the last byte
MAX_DOCUMENT_BYTES = 256 * 2**10  # documents of well-known providers have up to 20 kB
MAX_KEYS = 100

LOG = logging.getLogger(__name__)
logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs a line a request


class IssuerKeys:
    """The public keys of an issuer, fetched on demand, at most every `PAUSE_SECONDS`.

    Args:
        issuer: Its URL.
        now: A clock, in seconds.
    """

    def __init__(self, issuer: str, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._now = now
        self._keys: Keys = {}
        self._fetched = self._tried = -STALE_SECONDS
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key with this identifier for this algorithm.

        Returns at once if the key is known; else waits up to `FETCH_SECONDS` for the issuer.

        Raises:
            NotAuthenticatedError: The issuer has no such key.
            IssuerUnreachableError: The issuer's keys cannot be fetched.
        """
        wanted = (kid, algorithm)
        now = self._now()
        age = now - self._fetched
        known = wanted in self._keys and age < STALE_SECONDS
        if not (known and age < FRESH_SECONDS) and now - self._tried >= PAUSE_SECONDS:
            self._tried = now
            self._fetching = asyncio.create_task(self._fetch(now))
        if known:
            return self._keys[wanted]
        if self._fetching is not None:  # one fetch serves all waiting requests
            await asyncio.shield(self._fetching)
        if wanted in self._keys and now - self._fetched < STALE_SECONDS:
            return self._keys[wanted]
        if self._fetched < self._tried:
            detail = "the keys of the identity provider cannot be had"
            raise IssuerUnreachableError(detail, int(PAUSE_SECONDS))
        raise NotAuthenticatedError("the token is signed with a key that its issuer does not have")

    async def _fetch(self, now: float) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                found = await _published_by(self._issuer)
            self._keys = usable(found)
        except TimeoutError:
            LOG.error("no keys from %s within %g s", self._issuer, FETCH_SECONDS)  # noqa: TRY400
        except Exception as error:  # noqa: BLE001  # a bad document must not fail requests
            LOG.error("no keys from %s: %r", self._issuer, error)  # noqa: TRY400  # it says it all
        else:
            self._fetched = now


def usable(published: Mapping[str, Any]) -> Keys:
    """The keys of a JWK Set that may verify signatures; others are ignored, and logged.

    Raises:
        ValueError: No key is usable, or there are more than `MAX_KEYS`.

    References:
        RFC 7517 (JSON Web Key), RFC 7518 (their algorithms).
    """
    listed = published.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"`keys` is no list of at most {MAX_KEYS} keys")
    keys: Keys = {}
    refused = 0
    for each in listed:
        try:
            found = _usable(each)
        except Exception:  # noqa: BLE001  # an unreadable key is ignored
            found = {}
        refused += not found
        keys |= found
    if not keys:
        raise ValueError(f"none of its {len(listed)} keys can be used")
    if refused:
        LOG.info("%d of the issuer's %d keys are not used", refused, len(listed))
    return keys


def _usable(published: Mapping[str, Any]) -> Keys:
    """One key, by each algorithm that it may be used with; empty if it is not usable."""
    key = jwt.PyJWK(dict(published)).key
    algorithms: tuple[str, ...] = ()
    if isinstance(key, RSAPublicKey) and key.key_size in RSA_BITS:
        algorithms = OF_RSA
    elif isinstance(key, EllipticCurvePublicKey):
        algorithms = OF_CURVES.get(key.curve.name, ())
    elif isinstance(key, Ed25519PublicKey):
        algorithms = OF_ED25519
    kid, only = published.get("kid"), published.get("alg")
    signs = published.get("use", "sig") == "sig"
    verifies = "verify" in published.get("key_ops", ["verify"])
    if not (signs and verifies and (kid is None or isinstance(kid, str))):
        return {}
    return {(kid, each): key for each in algorithms if only in {None, each}}


async def _published_by(issuer: str) -> dict[str, Any]:
    """The issuer's JWK Set, at the address that its discovery document names.

    References:
        OpenID Connect Discovery 1.0, 4.
    """
    # In a thread: reading the CA certificates takes tens of milliseconds
    async with await asyncio.to_thread(_new_client) as client:
        described = await _json(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if described["issuer"] != issuer:
            raise ValueError("it calls itself by another name")
        place = described["jwks_uri"]
        if issuer.startswith("https:") and not place.startswith("https:"):
            raise ValueError("its keys are not at an https URL")
        return await _json(client, place)


def _new_client() -> httpx2.AsyncClient:
    # `identity`, so that the limit of bytes applies to what is received
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    authorities = ssl.create_default_context()  # SSL_CERT_FILE may name a hospital's own CA
    return httpx2.AsyncClient(
        headers=headers, verify=authorities, timeout=FETCH_SECONDS, follow_redirects=False
    )


async def _json(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", safe(url)) as answer:
        if answer.status_code != httpx2.codes.OK:
            raise ValueError(f"it answers {answer.status_code}")
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"a document has more than {MAX_DOCUMENT_BYTES} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise TypeError("a document is no JSON object")
    return found
