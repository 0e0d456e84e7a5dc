"""C-STORE: an association that stays open while results are due (PS3.4 Annex B)."""

from __future__ import annotations

import logging

from pydicom.uid import UID
from pynetdicom.dsutils import encode

from service.dicom.destinations import CStoreDestination
from service.dicom.entries import Leased
from service.dicom.pdu import PduError
from service.dicom.senders.association import Association, RejectedAssociationError
from service.dicom.senders.client_tls import client_tls
from service.dicom.senders.connection import Connection
from service.dicom.senders.payloads import report_of
from service.dicom.senders.sender import RejectedError, RetryableError, Warned
from service.dicom.senders.statuses import (
    DUPLICATE,
    PENDING,
    WARNINGS,
    is_away,
    is_busy,
    is_later,
)

RELEASE_SECONDS = 3.0  # for the answer; then the association is aborted
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it may log what objects hold


class CStoreSender:
    """Stores reports at one application entity."""

    def __init__(self, destination: CStoreDestination) -> None:
        self._destination = destination
        self._association: Association | None = None

    def send(self, leased: Leased) -> Warned | None:
        """See Sender. The time limit holds for opening an association, and for each report."""
        try:
            return _outcome(self._stored(leased))
        except TimeoutError as error:
            detail = f"no answer within {self._destination.timeout_seconds:g} s"
            raise RetryableError("timeout", detail, away=True) from error
        except OSError as error:  # also if its name does not resolve
            detail = f"no association: {type(error).__name__}"
            raise RetryableError("unreachable", detail, away=True) from error
        except RejectedAssociationError as error:
            raise RetryableError("association_rejected", str(error), away=True) from error
        except PduError as error:
            raise RetryableError("unexpected_answer", str(error), away=True) from error

    def idle(self) -> None:
        """Release the association; many servers allow few."""
        self.close()

    def close(self) -> None:
        """Release the association, if it is still there."""
        association, self._association = self._association, None
        if association is not None and association.is_open():
            association.release(min(RELEASE_SECONDS, self._destination.timeout_seconds))

    def _stored(self, leased: Leased) -> int:
        report = report_of(leased.payload)
        association, self._association = self._opened(), None
        try:
            implicit = UID(association.syntax).is_implicit_VR
            data_set = encode(report, implicit, is_little_endian=True)
            if data_set is None:
                raise ValueError("the report cannot be encoded")
            seconds = self._destination.timeout_seconds
            status = association.store(str(report.SOPInstanceUID), data_set, seconds)
        except BaseException:
            association.abort()
            raise
        self._association = association
        return status

    def _opened(self) -> Association:
        """The association; a new one if it has ended."""
        if self._association is not None and self._association.is_open():
            return self._association
        given = self._destination
        tls = client_tls(given) if given.tls else None
        connection = Connection(given.host, given.port, tls, given.timeout_seconds)
        return Association(connection, given.called_ae_title, given.calling_ae_title)


def _outcome(status: int) -> Warned | None:
    detail = f"status {status:04X}H"
    if status == 0:
        return None
    if status == DUPLICATE or status in WARNINGS:
        return Warned(detail)
    if is_busy(status):
        raise RetryableError("busy", detail, away=True)
    if is_away(status):
        raise RetryableError("no_access", detail, away=True)
    if is_later(status):
        raise RetryableError("server_error", detail)
    if status in PENDING:
        raise RetryableError("unexpected_answer", detail, away=True)
    raise RejectedError(detail)
