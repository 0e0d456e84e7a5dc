"""Clients, their permissions, and the errors of authentication and authorisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

# Interactive images; archives and jobs; decisions about images of jobs; the list of clients
Permission = Literal["classify", "backfill", "review", "admin"]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
REALM = 'Bearer realm="cxrview"'


@dataclass(frozen=True)
class Client:
    """A client, by its API key, its token or its address."""

    name: str
    permissions: frozenset[Permission]


class NotAuthenticatedError(Exception):
    """The request has no key or token, or one that the service does not accept.

    Args:
        detail: The reason.
        presented: Whether the request had a key or token.
    """

    code: ClassVar[str] = "not_authenticated"

    def __init__(self, detail: str, *, presented: bool = True) -> None:
        super().__init__(detail)
        # RFC 6750, 3.1: a client that sent no key or token gets no error code
        self.challenge = f'{REALM}, error="invalid_token"' if presented else REALM


class NotPermittedError(Exception):
    """The client is known, but lacks a permission."""

    code: ClassVar[str] = "not_permitted"

    def __init__(self, missing: set[Permission]) -> None:
        scope = " ".join(sorted(missing))
        super().__init__(f"this client lacks the permission: {scope}")
        self.challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'


class IssuerUnreachableError(Exception):
    """A token cannot be checked, because its issuer's keys cannot be fetched."""

    code: ClassVar[str] = "issuer_unreachable"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
