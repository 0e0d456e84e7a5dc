"""Tokens of an identity provider: which are trusted, and what happens while it is away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import httpx2
import jwt
import pytest
from clocks import Clock
from conftest import DATA
from identity_provider import AUDIENCE, Provider, providing
from jwt.algorithms import RSAAlgorithm
from pydantic import ValidationError

from service.api.auth.clients import (
    Client,
    IssuerUnreachableError,
    NotAuthenticatedError,
)
from service.api.auth.issuer import FRESH_SECONDS, PAUSE_SECONDS, STALE_SECONDS
from service.api.auth.tokens import Tokens
from service.api.settings import Settings

BODY = (DATA / "frontal-0003.jpg").read_bytes()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as made:
        yield made


@pytest.fixture
def tokens(provider: Provider) -> Tokens:
    return Tokens(provider.issuer, AUDIENCE)


def client_of(tokens: Tokens, token: str) -> Client:
    return asyncio.run(tokens.client_of(token))


@pytest.mark.parametrize(("kid", "algorithm"), [("r", "RS256"), ("p", "PS512"), ("e", "ES256")])
def test_a_good_token_is_its_holder(
    tokens: Tokens, provider: Provider, kid: str, algorithm: str
) -> None:
    """Its subject, and of its scope what the service knows."""
    found = client_of(tokens, provider.token(kid, algorithm, scope="openid backfill classify"))
    assert found == Client("oidc:pacs", frozenset({"classify", "backfill"}))


@pytest.mark.parametrize(
    ("claim", "prefix", "claims"),
    [
        ("scope", "", {"scope": "classify"}),
        ("scp", "cxrview:", {"scp": ["cxrview:classify", "backfill"]}),
        ("access.roles", "", {"access": {"roles": ["classify", 7]}}),
    ],
)  # fmt: skip
def test_permissions_are_where_the_provider_puts_them(
    provider: Provider, claim: str, prefix: str, claims: dict[str, object]
) -> None:
    """In text or a list, within objects, behind a prefix."""
    tokens = Tokens(provider.issuer, AUDIENCE, claim, prefix)
    assert client_of(tokens, provider.token(**claims)).permissions == {"classify"}
    for nothing in ({"scope": None}, {"scope": 7}, {"scope": {"classify": True}}):
        found = client_of(tokens, provider.token(scp=None, access="x", **nothing))
        assert found.permissions == set()


def unsigned(provider: Provider) -> str:
    payload = jwt.decode(provider.token(), options={"verify_signature": False})
    return jwt.encode(payload, None, "none")


def signed_with_the_public_key(provider: Provider) -> str:
    """A forger who knows the published key could sign so, if secrets were allowed as keys."""
    pem = RSAAlgorithm.to_jwk(provider.rsa_key.public_key())

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    payload = jwt.decode(provider.token(), options={"verify_signature": False})
    body = part({"alg": "HS256", "kid": "r", "typ": "JWT"}) + b"." + part(payload)
    made = hmac.new(pem.encode(), body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(made).rstrip(b"=")).decode()


REFUSED = {
    "expired": lambda p: p.token(exp=time.time() - 60),
    "not yet": lambda p: p.token(nbf=time.time() + 300),
    "wrong issuer": lambda p: p.token(iss="https://elsewhere.example"),
    "wrong audience": lambda p: p.token(aud="another"),
    "no expiry": lambda p: p.token(exp=None),
    "no audience": lambda p: p.token(aud=None),
    "no issuer": lambda p: p.token(iss=None),
    "no subject": lambda p: p.token(sub=None),
    "alg none": unsigned,
    "public key as a secret": signed_with_the_public_key,
    "key of another algorithm": lambda p: p.token("e", "RS256"),
    "unknown key": lambda p: p.token("x"),
    "another's key": lambda p: Provider(issuer=p.issuer).token(),
    "cut off": lambda p: p.token()[:-2],
    "no token": lambda _: "x",
    "nothing": lambda _: "",
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_a_bad_token_names_no_client(tokens: Tokens, provider: Provider, make) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(NotAuthenticatedError):
        client_of(tokens, make(provider))


def test_keys_are_asked_for_once_and_kept_while_the_provider_is_away(provider: Provider) -> None:
    """Unknown keys do not make the service ask more often; known ones stay good for a day."""
    clock = Clock(1e6)
    tokens = Tokens(provider.issuer, AUDIENCE, now=clock)

    async def scenario() -> None:
        before = provider.asked
        await asyncio.gather(*(tokens.client_of(provider.token()) for _ in range(20)))
        assert provider.asked == before + 2  # its description, and its keys
        for _ in range(3):
            with pytest.raises(NotAuthenticatedError):
                await tokens.client_of(provider.token("x"))
        assert provider.asked == before + 2
        provider.up = False
        clock.seconds += FRESH_SECONDS
        assert (await tokens.client_of(provider.token())).name == "oidc:pacs"
        with pytest.raises(IssuerUnreachableError) as error:
            await tokens.client_of(provider.token("x"))
        assert error.value.retry_after_seconds == PAUSE_SECONDS
        assert (await tokens.client_of(provider.token())).name == "oidc:pacs"
        assert provider.asked == before + 3
        clock.seconds += STALE_SECONDS
        with pytest.raises(IssuerUnreachableError):
            await tokens.client_of(provider.token())
        provider.up = True
        clock.seconds += PAUSE_SECONDS
        assert (await tokens.client_of(provider.token())).name == "oidc:pacs"

    try:
        asyncio.run(scenario())
    finally:
        provider.up = True


def test_a_key_that_is_replaced_is_learnt(provider: Provider) -> None:
    """With the first token that is signed by the new one; the old is forgotten by and by."""
    clock = Clock(1e6)
    tokens = Tokens(provider.issuer, AUDIENCE, now=clock)

    async def scenario() -> None:
        await tokens.client_of(provider.token("r"))
        provider.kids = ["new"]
        clock.seconds += PAUSE_SECONDS
        assert (await tokens.client_of(provider.token("new"))).name == "oidc:pacs"
        with pytest.raises(NotAuthenticatedError):
            await tokens.client_of(provider.token("r"))
        provider.kids = ["r"]
        clock.seconds += FRESH_SECONDS
        asked = provider.asked
        while provider.asked < asked + 2:  # no client with a known key waits for it
            assert (await tokens.client_of(provider.token("new"))).name == "oidc:pacs"
            await asyncio.sleep(0.005)

    try:
        asyncio.run(scenario())
    finally:
        provider.kids = ["r"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("calls_itself", "https://elsewhere.example"),
        ("keys_at", "http://elsewhere.example/keys"),
        ("keys_at", "file:///etc/passwd"),
        ("keys_at", ""),
    ],
)
def test_a_provider_that_leads_elsewhere_is_not_followed(
    provider: Provider, attribute: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could lead to keys that others on the network can change, or to another issuer's keys."""
    monkeypatch.setattr(provider, attribute, value)
    with pytest.raises(IssuerUnreachableError):
        client_of(Tokens(provider.issuer, AUDIENCE), provider.token())


def test_tokens_open_the_service(start, light: Settings, provider: Provider) -> None:
    """Over HTTP: 401 with what is wrong, 403 with what is missing, and else an answer."""
    settings = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE}
    with start(light.model_copy(update=settings)) as service, service.client() as client:

        def sent(token: str, path: str = "/v1/classify") -> httpx2.Response:
            return client.post(path, content=BODY, headers={"authorization": f"Bearer {token}"})

        assert sent(provider.token()).status_code == 200
        lacking = sent(provider.token(), "/v1/classify/batch")
        assert (lacking.status_code, lacking.json()["code"]) == (403, "not_permitted")
        assert 'error="insufficient_scope", scope="backfill"' in lacking.headers["www-authenticate"]
        for make in REFUSED.values():
            refused = sent(make(provider) or "-")
            assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        assert "error" not in client.get("/v1/model").headers["www-authenticate"]
        provider.up = False
    try:
        with start(light.model_copy(update=settings)) as service, service.client() as client:
            away = sent(provider.token())
            assert (away.status_code, away.json()["code"]) == (503, "issuer_unreachable")
            assert away.headers["retry-after"] == "10"
    finally:
        provider.up = True


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_issuer": "https://idp.example"},
        {"oidc_audience": "cxrview"},
        {"oidc_issuer": "http://idp.example", "oidc_audience": "cxrview"},
    ],
)
def test_half_an_issuer_is_a_failed_start(wrong: dict[str, str]) -> None:
    """An issuer whose keys others on the network could change is refused too."""
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"oidc_client_id": "page"},
        {"oidc_client_id": "the page", "oidc_issuer": "https://idp.example", "oidc_audience": "x"},
        {"oidc_client_id": "page", "oidc_issuer": "https://[::1]", "oidc_audience": "x"},
        {"oidc_client_id": "page", "oidc_issuer": "https://idp.example;x", "oidc_audience": "x"},
        {"oidc_client_id": "page", "oidc_issuer": "https://a b", "oidc_audience": "x"},
        {"oidc_scopes": "profile email"},
    ],
)
def test_a_sign_in_that_cannot_work_is_a_failed_start(wrong: dict[str, str]) -> None:
    """Nor can the issuer add words to the policy of the page."""
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)
