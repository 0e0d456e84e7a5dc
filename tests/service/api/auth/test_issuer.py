"""An identity provider that is slow, endless or wrong, and tokens that are made to break."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from clocks import Clock
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.api.auth import issuer as issuer_module
from service.api.auth.clients import IssuerUnreachableError, NotAuthenticatedError
from service.api.auth.issuer import (
    MAX_DOCUMENT_BYTES,
    MAX_KEYS,
    PAUSE_SECONDS,
    IssuerKeys,
    safe,
    usable,
)
from service.api.auth.tokens import Tokens

AUDIENCE = "cxrview"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
SECRET = b"0123456789abcdef0123456789abcdef"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Any, **fields: object) -> dict[str, Any]:
    kinds = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm = next((kinds[cls] for cls in kinds if isinstance(key, cls)), OKPAlgorithm)
    return algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k"} | fields


Write = Callable[[bytes], Any]


@dataclass
class Provider:
    """Answers each path with bytes, a JSON object, or a function that writes what it likes."""

    port: int = 0
    paths: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, *keys: dict[str, Any]) -> None:
        discovery = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        self.paths = {"/.well-known/openid-configuration": discovery, "/keys": {"keys": [*keys]}}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                self.asked.append(path)
                found = self.paths.get(path)
                if callable(found):
                    await found(writer)
                    break
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def providing(*keys: dict[str, Any]) -> AsyncIterator[Provider]:
    provider = Provider()
    async with await asyncio.start_server(provider.answer, "127.0.0.1", 0) as server:
        provider.port = server.sockets[0].getsockname()[1]
        provider.publish(*keys)
        yield provider


def token(
    provider: Provider, key: Any = RSA, algorithm: str = "RS256", kid: str = "k", **claims: object
) -> str:
    now = time.time()
    usual = {"iss": provider.issuer, "aud": AUDIENCE, "sub": "pacs", "exp": now + 60}
    return jwt.encode(usual | claims, key, algorithm, headers={"kid": kid})


async def dripping_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def dripping_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silence(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 2**20)
        await writer.drain()


async def endless_answers(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


def redirect(status: int, place: str) -> Callable[[asyncio.StreamWriter], Any]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()

    return answer


@pytest.mark.parametrize("where", ["/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize(
    "behaviour", [dripping_head, dripping_body, silence, endless, endless_answers]
)
def test_a_provider_is_waited_for_within_bounds(
    where: str, behaviour: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of time and bytes, for all who wait together; the event loop goes on meanwhile."""
    monkeypatch.setattr(issuer_module, "FETCH_SECONDS", 0.5)

    async def scenario() -> None:
        async with providing(jwk(RSA)) as provider:
            provider.paths[where] = behaviour
            tokens = Tokens(provider.issuer, AUDIENCE)
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.01)

            turning = asyncio.create_task(turn())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begin = time.monotonic()
            found = await asyncio.gather(
                *(tokens.client_of(token(provider, kid=f"{at % 7}")) for at in range(50)),
                return_exceptions=True,
            )
            assert time.monotonic() - begin < 5
            turning.cancel()
            assert {type(each) for each in found} == {IssuerUnreachableError}
            assert provider.asked.count("/.well-known/openid-configuration") == 1
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000  # kB
            assert turns > 1

    asyncio.run(scenario())


BAD_DOCUMENTS: dict[str, Any] = {
    "nested": b"[" * 100_000,
    "nested objects": b'{"keys":' * 25_000,
    "a huge number": b'{"keys": ' + b"9" * 5000 + b"}",
    "too large": b'{"keys": []}' + b" " * MAX_DOCUMENT_BYTES,
    "no JSON": b"<html>",
    "no text": b"\xff\xfe\0",
    "a list": [],
    "a text": "x",
    "nothing": b"",
    "no keys": {"keys": []},
    "keys are text": {"keys": "abc"},
    "keys are an object": {"keys": {"kid": "k"}},
    "too many": {"keys": [jwk(RSA, kid=f"{at}") for at in range(MAX_KEYS + 1)]},
    "to another host": redirect(302, "https://elsewhere.example/keys"),
    "to a file": redirect(301, "file:///etc/passwd"),
    "to this service": redirect(307, "http://127.0.0.1:1/keys"),
    "to itself": redirect(308, "/keys"),
}


@pytest.mark.parametrize("where", ["/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_bad_document_is_no_answer(
    where: str, document: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """503 and one line in the log; a known key stays good."""
    clock = Clock(1e6)

    async def scenario() -> None:
        async with providing(jwk(RSA)) as provider:
            tokens = Tokens(provider.issuer, AUDIENCE, now=clock)
            provider.paths[where] = document
            with pytest.raises(IssuerUnreachableError):
                await tokens.client_of(token(provider))
            (only,) = [each for each in caplog.records if each.levelno == logging.ERROR]
            assert only.message.startswith(f"no keys from {provider.issuer}")
            provider.publish(jwk(RSA))
            clock.seconds += PAUSE_SECONDS
            assert (await tokens.client_of(token(provider))).name == "oidc:pacs"
            provider.paths[where] = document
            clock.seconds += PAUSE_SECONDS
            with pytest.raises(IssuerUnreachableError):
                await tokens.client_of(token(provider, kid="unknown"))
            assert (await tokens.client_of(token(provider))).name == "oidc:pacs"

    asyncio.run(scenario())


def test_unknown_keys_are_asked_for_once_in_an_interval() -> None:
    """However many different ones are presented, by however many clients."""
    clock = Clock(1e6)

    async def scenario() -> None:
        async with providing(jwk(RSA)) as provider:
            tokens = Tokens(provider.issuer, AUDIENCE, now=clock)
            for interval in range(1, 4):
                for _ in range(3):
                    found = await asyncio.gather(
                        *(tokens.client_of(token(provider, kid=f"{at}")) for at in range(20)),
                        return_exceptions=True,
                    )
                    assert {type(each) for each in found} == {NotAuthenticatedError}
                assert provider.asked.count("/keys") == interval
                clock.seconds += PAUSE_SECONDS

    asyncio.run(scenario())


P256, P384, P521 = (
    ec.generate_private_key(each()) for each in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
)
ACCEPTED = {
    "RSA": (jwk(RSA), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "RSA for one": (jwk(RSA, alg="PS384", use="sig"), {"PS384"}),
    "RSA that verifies": (jwk(RSA, alg="RS256", key_ops=["verify"]), {"RS256"}),
    "P-256": (jwk(P256), {"ES256"}),
    "P-384": (jwk(P384), {"ES384"}),
    "P-521": (jwk(P521), {"ES512"}),
    "Ed25519": (jwk(ed25519.Ed25519PrivateKey.generate()), {"EdDSA"}),
}  # fmt: skip
NOT_ACCEPTED: dict[str, Any] = {
    "1,024 bits": jwk(WEAK, alg="RS256"),
    "for encryption": jwk(RSA, use="enc"),
    "to encrypt with": jwk(RSA, alg="RSA-OAEP"),
    "that does not verify": jwk(RSA, key_ops=["encrypt"]),
    "a shared secret": {"kty": "oct", "k": encoded(SECRET), "kid": "k"},
    "a shared secret with its algorithm": {
        "kty": "oct", "k": encoded(SECRET), "kid": "k", "alg": "HS256",
    },
    "a secret said to be RSA": {"kty": "RSA", "k": encoded(SECRET), "kid": "k", "alg": "HS256"},
    "none": jwk(RSA, alg="none"),
    "an algorithm of another kind": jwk(P256, alg="RS256"),
    "an algorithm of another curve": jwk(P256, alg="ES512"),
    "an unknown algorithm": jwk(RSA, alg="XX"),
    "an algorithm that is a list": jwk(RSA, alg=["RS256"]),
    "secp256k1": jwk(ec.generate_private_key(ec.SECP256K1())),
    "Ed448": jwk(ed448.Ed448PrivateKey.generate()),
    "X25519": {"kty": "OKP", "crv": "X25519", "x": encoded(bytes(range(32))), "kid": "k"},
    "a private key": RSAAlgorithm.to_jwk(RSA, as_dict=True) | {"kid": "k"},
    "an identifier that is a number": jwk(RSA, kid=5),
    "an identifier that is a list": jwk(RSA, kid=["k"]),
    "a modulus that is a number": jwk(RSA, n=5),
    "a huge modulus": jwk(RSA, n=encoded(b"\xff" * 60_000)),
    "a point that is on no curve": jwk(P256, x=encoded(bytes(32))),
    "no type": {"kid": "k"},
    "a type that is a list": {"kid": "k", "kty": ["RSA"]},
    "a text": "RSA",
    "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize(("key", "algorithms"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_key_is_used_for_what_it_is_made_for(key: dict[str, Any], algorithms: set[str]) -> None:
    """Its own algorithm, or those of its kind and curve."""
    assert {algorithm for _, algorithm in usable({"keys": [key]})} == algorithms


@pytest.mark.parametrize("key", NOT_ACCEPTED.values(), ids=NOT_ACCEPTED)
def test_a_key_that_should_not_be_used_is_not(key: Any) -> None:
    """And does not keep the others from being used."""
    with pytest.raises(ValueError, match="none of its 1 keys"):
        usable({"keys": [key]})
    assert (
        usable({"keys": [key, jwk(RSA, kid="good"), key]}).keys()
        == usable({"keys": [jwk(RSA, kid="good")]}).keys()
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example", "http://127.0.0.1:80@idp.example/", "http://localhost:x@idp.example",
        "http://127.0.0.1.idp.example:80", "http://localhost.idp.example", "file:///etc/passwd",
        "ftp://127.0.0.1:80/", "https://", "https:///keys", "https://user@idp.example", "", "idp",
        "//idp.example", "https:idp.example", "HTTP://idp.example", "http://[::1",
    ],
)  # fmt: skip
def test_a_url_that_could_be_changed_on_the_way_is_refused(url: str) -> None:
    """It is neither https nor on this machine, whatever it looks like."""
    with pytest.raises(ValueError):  # noqa: PT011  # urlsplit has messages of its own
        safe(url)


def test_a_provider_by_https_has_its_keys_there_too() -> None:
    """Not on this machine, where something else listens."""

    async def scenario() -> None:
        keys = IssuerKeys("https://localhost:1", time.monotonic)
        with pytest.raises(IssuerUnreachableError):
            await keys.find("k", "RS256")

    asyncio.run(scenario())


def signed(header: bytes, payload: bytes) -> str:
    """A token whose signature is right, of whatever it is made."""
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    body = f"{encoded(header)}.{encoded(payload)}"
    return f"{body}.{encoded(algorithm.sign(body.encode(), RSA))}"


HEADER = b'{"alg":"RS256","kid":"k"}'


def with_header(header: bytes) -> Callable[[Provider], str]:
    def make(provider: Provider) -> str:
        return signed(header, encoded_claims(provider))

    return make


def encoded_claims(provider: Provider, **claims: object) -> bytes:
    usual = {"iss": provider.issuer, "aud": AUDIENCE, "sub": "pacs", "exp": time.time() + 60}
    return json.dumps(usual | claims).encode()


def with_claims(**claims: object) -> Callable[[Provider], str]:
    def make(provider: Provider) -> str:
        return signed(HEADER, encoded_claims(provider, **claims))

    return make


def with_payload(payload: bytes) -> Callable[[Provider], str]:
    return lambda _: signed(HEADER, payload)


BAD_TOKENS: dict[str, Callable[[Provider], str]] = {
    "a header of brackets": lambda _: encoded(b"[" * 100_000) + ".e30.AA",
    "a header of objects": lambda _: encoded(b'{"a":' * 50_000) + ".e30.AA",
    "a header with a huge number": with_header(HEADER[:-1] + b',"n":' + b"9" * 5000 + b"}"),
    "a large header": with_header(HEADER[:-1] + b',"x":"' + b"x" * 10**6 + b'"'),
    "a header that is a list": with_header(b'["RS256"]'),
    "crit": with_header(HEADER[:-1] + b',"crit":["exp"]}'),
    "crit of nothing": with_header(HEADER[:-1] + b',"crit":[]}'),
    "crit of half a character": with_header(HEADER[:-1] + b',"crit":["\\ud800"]}'),
    "b64": with_header(HEADER[:-1] + b',"b64":false,"crit":["b64"]}'),
    "b64 that is true": with_header(HEADER[:-1] + b',"b64":true}'),
    "no algorithm": with_header(b'{"kid":"k"}'),
    "an algorithm that is a number": with_header(b'{"alg":5,"kid":"k"}'),
    "an algorithm that is a list": with_header(b'{"alg":["RS256"],"kid":"k"}'),
    "an algorithm that is nothing": with_header(b'{"alg":null,"kid":"k"}'),
    "another algorithm of the key": with_header(b'{"alg":"PS256","kid":"k"}'),
    "an algorithm of another kind": with_header(b'{"alg":"ES256","kid":"k"}'),
    "none": with_header(b'{"alg":"none","kid":"k"}'),
    "two algorithms": with_header(b'{"alg":"none","alg":"HS256","kid":"k"}'),
    "an identifier that is a number": with_header(b'{"alg":"RS256","kid":5}'),
    "an identifier that is a list": with_header(b'{"alg":"RS256","kid":["k"]}'),
    "an identifier of half a character": with_header(b'{"alg":"PS256","kid":"\\udfff"}'),
    "encrypted": lambda _: ".".join([encoded(b'{"alg":"RSA-OAEP","enc":"A256GCM"}'), *"abcd"]),
    "a token in a token": lambda p: signed(HEADER[:-1] + b',"cty":"JWT"}', token(p).encode()),
    "no JSON": with_payload(b"x"),
    "a list": with_payload(b"[1]"),
    "a number": with_payload(b"1"),
    "brackets": with_payload(b"[" * 100_000),
    "a huge number": with_payload(b'{"exp":' + b"9" * 5000 + b"}"),
    "exp without end": with_claims(exp=math.inf),
    "exp before all time": with_claims(exp=-math.inf),
    "exp that is no number": with_claims(exp=math.nan),
    "exp in text": with_claims(exp="soon"),
    "exp in a list": with_claims(exp=[2**40]),
    "exp that is true": with_claims(exp=True),
    "exp of a minute ago": with_claims(exp=time.time() - 60),
    "exp that is nothing": with_claims(exp=None),
    "nbf without end": with_claims(nbf=math.inf),
    "nbf that is no number": with_claims(nbf=math.nan),
    "nbf of tomorrow": with_claims(nbf=time.time() + 86_400),
    "iat of tomorrow": with_claims(iat=time.time() + 86_400),
    "iat without end": with_claims(iat=math.inf),
    "aud of others": with_claims(aud=["a", "b"]),
    "aud of no one": with_claims(aud=[]),
    "aud that is a number": with_claims(aud=5),
    "aud with a number": with_claims(aud=[AUDIENCE, 5]),
    "aud that is an object": with_claims(aud={AUDIENCE: 1}),
    "aud that is longer": with_claims(aud=AUDIENCE + "x"),
    "iss in a list": with_claims(iss=["http://127.0.0.1"]),
    "iss of half a character": with_claims(iss="\ud800"),
    "sub that is a number": with_claims(sub=5),
    "sub that is a list": with_claims(sub=["pacs"]),
    "sub that is nothing": with_claims(sub=None),
    "not of letters": lambda _: "\xe4.\xff.\xe9",
    "half characters": lambda _: "\ud800.\ud800.\ud800",
    "dots": lambda _: "." * 100_000,
    "empty": lambda _: "..",
    "a NUL": lambda p: token(p).replace(".", "\0.", 1),
    "a signature too many": lambda p: token(p) + ".AA",
}  # fmt: skip


async def refusal(tokens: Tokens, made: str) -> str:
    """Why this token is not accepted; empty if it is."""
    try:
        await tokens.client_of(made)
    except NotAuthenticatedError as error:
        return str(error)
    return ""


def test_tokens_that_are_made_to_break_are_refused() -> None:
    """Each with a reason that can be sent; the key of most is a good one."""

    async def scenario() -> None:
        key = jwk(RSA, alg="RS256")
        async with providing(key, key | {"kid": None}, jwk(RSA, kid="\ud800")) as provider:
            tokens = Tokens(provider.issuer, AUDIENCE)
            assert (await tokens.client_of(token(provider))).name == "oidc:pacs"
            for name, make in BAD_TOKENS.items():
                reason = await refusal(tokens, make(provider))
                assert reason.startswith("the token is"), name
                assert reason.isascii(), name
                assert len(reason) < 500, name

    asyncio.run(scenario())


def test_odd_tokens_that_are_valid_are_accepted() -> None:
    """As RFC 7519 says; clocks may differ by half a minute."""

    async def scenario() -> None:
        now = time.time()
        async with providing(jwk(RSA)) as provider:
            tokens = Tokens(provider.issuer, AUDIENCE)
            for claims in (
                {"exp": 10**300},
                {"exp": now + 60.5},
                {"exp": now - 10},
                {"nbf": now + 20},
                {"aud": ["x", AUDIENCE]},
                {"sub": "a\nb"},
                {"sub": "\ud800"},
            ):
                made = signed(HEADER, encoded_claims(provider, **claims))
                assert (await tokens.client_of(made)).name.startswith("oidc:"), claims

    asyncio.run(scenario())
