"""What the receiver answers: DIMSE statuses of C-STORE, and reasons of rejected associations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

from service.dicom.entries import OutboxAwayError
from service.dicom.instance import InstanceError
from service.imaging import ImageError, UnsupportedSopClassError
from service.inference import UnavailableError

Code = Literal[0x0000, 0x0110, 0x0117, 0x0122, 0xA700, 0xA900, 0xC000]
CODES: tuple[Code, ...] = get_args(Code)
# PS3.4 B.2.3 and PS3.7 C.5; the meaning is what it has here
MEANINGS: Mapping[Code, str] = {
    0x0000: "Success: the object was classified, or had been before, and its results are committed",
    0x0110: "Processing failure: an error of the service, which its log names",
    0x0117: "Invalid SOP instance; the request has no valid SOP Instance UID",
    0x0122: "Refused: SOP class not supported; the object is neither CR, DX nor Secondary Capture, "
    "or the request lacks the SOP class of its presentation context",
    0xA700: "Refused: out of resources; nothing was kept, send the object again later",
    0xA900: "Error: data set does not match the SOP class or SOP instance of the request",
    0xC000: "Error: cannot understand; the object cannot be classified, and never will be",
}
COMMENT_CHARACTERS = 64  # Error Comment (0000,0902), VR LO


class Rejection(NamedTuple):
    """The values of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int  # 1: permanent, 2: transient
    source: int  # 1: service user, 3: service provider, presentation related
    reason: int


Reason = Literal[
    "called_ae",
    "calling_ae",
    "limit",
    "stopping",
    "application_context",
    "protocol_version",
    "malformed",
    "tls",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# `tls` has none: the handshake fails before an association is asked for; `malformed` has none,
# because such a request is aborted
REJECTIONS: Mapping[Reason, Rejection] = {
    "called_ae": Rejection(1, 1, 7),  # called AE title not recognised
    "calling_ae": Rejection(1, 1, 3),  # calling AE title not recognised: not in the allow-list
    "limit": Rejection(2, 3, 2),  # local limit exceeded
    "stopping": Rejection(2, 3, 1),  # temporary congestion
    "application_context": Rejection(1, 1, 2),  # application context name not supported
    "protocol_version": Rejection(1, 2, 2),  # protocol version not supported
}


class MismatchError(Exception):
    """The data set is of another SOP class or instance than the request says."""

    code: ClassVar[str] = "instance_mismatch"


class NotStoredError(Exception):
    """The object was not kept: too large, or too much is in memory."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Status:
    """An answer to C-STORE."""

    code: Code
    comment: str | None = None  # a problem's code; never text of the object


SUCCESS = Status(0x0000)
TOO_LARGE = "object_too_large"


def status_of(error: Exception) -> Status:
    """The answer to an object that is not accepted."""
    comment = getattr(error, "code", None)
    return Status(_code_of(error), comment and comment[:COMMENT_CHARACTERS])


def _code_of(error: Exception) -> Code:
    if isinstance(error, UnsupportedSopClassError):
        return 0x0122
    if isinstance(error, MismatchError):
        return 0xA900
    if isinstance(error, NotStoredError):
        return 0xC000 if error.code == TOO_LARGE else 0xA700
    if isinstance(error, ImageError | InstanceError):
        return 0xC000
    if isinstance(error, UnavailableError | OutboxAwayError):
        return 0xA700
    return 0x0110
