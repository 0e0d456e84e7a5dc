"""What may be wrong with a request before anything is known of its images."""

from __future__ import annotations

from typing import ClassVar


class HeadError(Exception):
    """The request's head is refused, and its connection closed."""


class HeadTooLargeError(HeadError):
    """Too many fields."""

    code: ClassVar[str] = "head_too_large"


class AmbiguousLengthError(HeadError):
    """Both Transfer-Encoding and Content-Length: proxies disagree which of them counts.

    References:
        RFC 9112 6.3, request smuggling.
    """

    code: ClassVar[str] = "ambiguous_length"


class BodyError(Exception):
    """The request's body is not accepted."""


class BodyTooLargeError(BodyError):
    """More bytes than the limit, by Content-Length or by counting."""

    code: ClassVar[str] = "body_too_large"


class BodyTimeoutError(BodyError):
    """The client stopped sending, or has sent for too long."""

    code: ClassVar[str] = "body_timeout"


class BodyLengthError(BodyError):
    """The body has another length than its Content-Length."""

    code: ClassVar[str] = "body_length"


class ClientGoneError(BodyError):
    """The client has closed its connection."""

    code: ClassVar[str] = "client_gone"
