"""Errors of a request, before its images are read."""

from __future__ import annotations

from typing import ClassVar


class HeadError(Exception):
    """The request's head is refused, and the connection closed."""


class HeadTooLargeError(HeadError):
    """The head has too many fields."""

    code: ClassVar[str] = "head_too_large"


class AmbiguousLengthError(HeadError):
    """The head has Transfer-Encoding and Content-Length; proxies disagree which one applies.

    References:
        RFC 9112 6.3, request smuggling.
    """

    code: ClassVar[str] = "ambiguous_length"


class BodyError(Exception):
    """The request's body is not accepted."""


class BodyTooLargeError(BodyError):
    """The body exceeds the limit, by Content-Length or by the bytes received."""

    code: ClassVar[str] = "body_too_large"


class BodyTimeoutError(BodyError):
    """The client stopped sending, or took too long to send the body."""

    code: ClassVar[str] = "body_timeout"


class BodyLengthError(BodyError):
    """The length of the body differs from its Content-Length."""

    code: ClassVar[str] = "body_length"


class ClientGoneError(BodyError):
    """The client has closed its connection."""

    code: ClassVar[str] = "client_gone"
