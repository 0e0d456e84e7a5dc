"""Which URLs of an identity provider are believed."""

from __future__ import annotations

from urllib.parse import urlsplit


def safe(url: str) -> str:
    """This URL, if it names a host, and nothing on the way can change what is there.

    Raises:
        ValueError: Neither https nor on this machine.
    """
    parts = urlsplit(url)
    own = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    named = bool(parts.hostname) and parts.username is None and parts.password is None
    if not named or not (own or parts.scheme == "https"):
        raise ValueError(f"{url} is not https: it could be changed on the way")
    return url
