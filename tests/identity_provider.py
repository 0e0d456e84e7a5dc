"""A small OpenID Connect identity provider on a real socket, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "cxrview"
CLIENT = "cxrview-page"  # a public client: it has no secret
JSON, HTML = "application/json", "text/html; charset=utf-8"

Values = dict[str, str]


@dataclass
class Provider:
    """An identity provider as OpenID Connect Discovery describes it.

    Its pages at /authorize and its endpoint /token sign people in: the authorisation code flow with
    PKCE, and refresh tokens. `claims` are of its access tokens, `id_claims` of its identity tokens.
    """

    rsa_key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    ec_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    issuer: str = ""
    calls_itself: str = ""
    keys_at: str = ""
    tokens_at: str = ""
    asked: int = 0
    up: bool = True
    kids: list[str] = field(default_factory=lambda: ["r"])
    claims: dict[str, Any] = field(default_factory=dict)
    id_claims: dict[str, Any] = field(default_factory=dict)
    expires_in: int = 60
    refreshes: bool = True  # gives refresh tokens
    codes: dict[str, Values] = field(default_factory=dict)  # each with the request that it is for
    refresh_tokens: set[str] = field(default_factory=set)  # each is valid once
    grants: list[Values] = field(default_factory=list)  # what /token was asked for

    def published(self) -> dict[str, Any]:
        """Its JWK Set."""
        own = RSAAlgorithm.to_jwk(self.rsa_key.public_key(), as_dict=True)
        other = ECAlgorithm.to_jwk(self.ec_key.public_key(), as_dict=True)
        names = [{"kid": name, "use": "sig"} for name in self.kids]
        named = [*names, {"kid": "p", "alg": "PS512"}]
        return {"keys": [*(own | name for name in named), other | {"kid": "e", "alg": "ES256"}]}

    def described(self) -> dict[str, Any]:
        """Its discovery document."""
        return {
            "issuer": self.calls_itself,
            "jwks_uri": self.keys_at,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": self.tokens_at,
            "code_challenge_methods_supported": ["S256"],
        }

    def token(self, kid: str = "r", algorithm: str = "RS256", **claims: object) -> str:
        """A token as it should be, but for these claims; None leaves one out."""
        now = time.time()
        usual = {"iss": self.issuer, "aud": AUDIENCE, "sub": "pacs", "exp": now + 60, "iat": now}
        merged = usual | {"scope": "openid classify"} | claims
        payload = {name: value for name, value in merged.items() if value is not None}
        key = self.ec_key if algorithm == "ES256" else self.rsa_key
        return jwt.encode(payload, key, algorithm, headers={"kid": kid})

    def page(self, request: Values) -> str:
        """Where a person signs in, or refuses to."""
        assert request["response_type"] == "code"
        assert request["code_challenge_method"] == "S256"
        assert request["client_id"] == CLIENT
        assert "openid" in request["scope"].split()
        code = secrets.token_urlsafe()
        self.codes[code] = request

        def link(name: str, **answer: str) -> str:
            query = urlencode(answer | {"state": request["state"], "iss": self.issuer})
            place = html.escape(f"{request['redirect_uri']}?{query}")
            return f"<a href='{place}'>{name}</a>"

        refused = link("Refuse", error="access_denied", error_description="Not <b>today</b>")
        return f"<!doctype html><title>Provider</title>{link('Agree', code=code)} {refused}"

    def tokens(self, asked: Values) -> tuple[int, dict[str, Any]]:
        """Tokens for a code with its verifier, or for a refresh token; each is good once."""
        self.grants.append(asked)
        if asked["grant_type"] == "refresh_token":
            if asked["refresh_token"] not in self.refresh_tokens:
                return 400, {"error": "invalid_grant"}
            self.refresh_tokens.remove(asked["refresh_token"])
            return 200, self._granted({})
        request = self.codes.pop(asked["code"], None)
        digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        same = ("client_id", "redirect_uri")
        if request is None or any(asked[name] != request[name] for name in same):
            return 400, {"error": "invalid_grant"}
        if challenge != request["code_challenge"]:
            return 400, {"error": "invalid_grant", "error_description": "PKCE"}
        return 200, self._granted({"nonce": request["nonce"]})

    def _granted(self, claims: dict[str, Any]) -> dict[str, Any]:
        granted = {
            "access_token": self.token(**self.claims),
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "id_token": self.token(scope=None, **({"aud": CLIENT} | claims | self.id_claims)),
        }
        if self.refreshes:
            granted["refresh_token"] = secrets.token_urlsafe()
            self.refresh_tokens.add(granted["refresh_token"])
        return granted


def _values(text: str) -> Values:
    return {name: value for name, (value,) in parse_qs(text, strict_parsing=True).items()}


@contextmanager
def providing() -> Iterator[Provider]:
    """A provider that answers, until the block ends."""
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            place = urlsplit(self.path)
            if not made.up:
                self.send_error(500)
            elif place.path == "/authorize":
                self.answer(200, HTML, made.page(_values(place.query)))
            else:
                keys = place.path == "/keys"
                self.answer(200, JSON, json.dumps(made.published() if keys else made.described()))

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            status, found = made.tokens(_values(asked))
            self.answer(status, JSON, json.dumps(found))

        def answer(self, status: int, media_type: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.send_header("access-control-allow-origin", "*")  # pages of clients may read it
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.issuer = made.calls_itself = f"http://127.0.0.1:{server.server_port}"
    made.keys_at = f"{made.issuer}/keys"
    made.tokens_at = f"{made.issuer}/token"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
