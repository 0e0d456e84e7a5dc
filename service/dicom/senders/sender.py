"""What all senders have in common: how an attempt ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from service.dicom.entries import Leased

# Why an attempt failed. A published code keeps its meaning
Failure = Literal[
    "unreachable",  # no connection, or it was lost
    "timeout",  # no answer in time
    "busy",  # it asks for a later attempt: HTTP 408, 429 and 503, DIMSE A7xxH
    "server_error",  # HTTP 5xx, DIMSE 0110H
    "redirect",  # HTTP 3xx, which is not followed
    "not_stored",  # HTTP says success, the instance's own status does not
    "no_access",  # it takes no result with this URL and these credentials
    "unexpected_answer",  # too large, against the protocol, or to another request
    "association_rejected",  # or its presentation context
    "rejected",  # it refuses this result, and would again
    "credentials",  # a file of secrets cannot be read
    "folder",  # the file cannot be written
    "internal_error",
]


class SendError(Exception):
    """A base class: the attempt failed.

    Args:
        code: Why.
        detail: For the operator; holds nothing that the destination wrote in words.
    """

    def __init__(self, code: Failure, detail: str) -> None:
        super().__init__(detail)
        self.code: Failure = code


class RetryableError(SendError):
    """A later attempt may succeed.

    Args:
        code: As SendError.
        detail: As SendError.
        after_seconds: What the destination asks for, for all results.
        away: The destination cannot take others now either.
    """

    def __init__(
        self, code: Failure, detail: str, after_seconds: float | None = None, *, away: bool = False
    ) -> None:
        super().__init__(code, detail)
        self.after_seconds = after_seconds
        self.away = away or after_seconds is not None


class RejectedError(SendError):
    """The destination would refuse this result again."""

    def __init__(self, detail: str) -> None:
        super().__init__("rejected", detail)


@dataclass(frozen=True)
class Warned:
    """The destination has the result, and has a remark."""

    detail: str


class Sender(Protocol):
    """Delivers to one destination; used by one thread."""

    def send(self, leased: Leased) -> Warned | None:
        """Deliver one result, and wait until the destination has it.

        Raises:
            RetryableError, RejectedError: It has not.
        """

    def idle(self) -> None:
        """Nothing is due: give back what the destination might need for others."""

    def close(self) -> None:
        """End the connections."""
