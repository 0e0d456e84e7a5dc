"""Which URLs of an identity provider are trusted."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


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


def origin_of(url: str) -> str:
    """The origin of a URL, as `https://idp.example:8443`, for a Content Security Policy.

    Raises:
        ValueError: Its host is written so that a policy cannot name it, as an IPv6 address.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not HOST.fullmatch(host):
        raise ValueError(f"a browser cannot be told to connect to {url}: use a name in ASCII")
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
