"""Which URLs of an identity provider are trusted."""

from __future__ import annotations

from urllib.parse import urlsplit


def safe(url: str) -> str:
    """The URL, if its content cannot be changed on the way: https, or on this machine.

    Raises:
        ValueError: It is neither https nor on this machine, or has no host, or a user.
    """
    parts = urlsplit(url)
    own = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    named = bool(parts.hostname) and parts.username is None and parts.password is None
    if not named or not (own or parts.scheme == "https"):
        raise ValueError(f"{url} is not https: it could be changed on the way")
    return url
