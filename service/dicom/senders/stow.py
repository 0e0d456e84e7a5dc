"""STOW-RS: one Structured Report a request (PS3.18 10.5)."""

from __future__ import annotations

import secrets

from service.dicom.destinations import StowDestination
from service.dicom.entries import Leased
from service.dicom.senders.payloads import uids_of
from service.dicom.senders.sender import RejectedError, RetryableError, Warned
from service.dicom.senders.statuses import is_away, is_later
from service.dicom.senders.stow_answer import AnswerError, failure_of, warning_of
from service.dicom.senders.web import Reply, Web, check_status

CONFLICT = 409  # all instances failed; each says why
ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"


class StowSender:
    """Stores reports by STOW-RS, and reads what became of each."""

    def __init__(self, destination: StowDestination) -> None:
        self._web = Web(destination)

    def send(self, leased: Leased) -> Warned | None:
        """See Sender. The HTTP status alone proves nothing."""
        _, uid = uids_of(leased.payload)
        boundary = secrets.token_hex(16)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                leased.payload,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": ACCEPT,
        }
        return _outcome(self._web.post("/studies", body, headers), uid)

    def idle(self) -> None:
        """See Sender."""

    def close(self) -> None:
        """See Sender."""
        self._web.close()


def _outcome(reply: Reply, uid: str) -> Warned | None:
    if reply.status != CONFLICT:
        check_status(reply.status)
    try:
        reason = failure_of(reply.content_type, reply.body, uid)
        warning = warning_of(reply.content_type, reply.body, uid)
    except AnswerError as error:
        if reply.status == CONFLICT:
            raise RejectedError(f"HTTP {reply.status}") from error
        raise RetryableError("not_stored", f"HTTP {reply.status}: {error}") from error
    if reason is None:
        return None if warning is None else Warned(f"Warning Reason {warning:04X}H")
    detail = f"HTTP {reply.status}, Failure Reason {reason:04X}H"
    if is_later(reason):
        raise RetryableError("not_stored", detail, away=is_away(reason))
    raise RejectedError(detail)
