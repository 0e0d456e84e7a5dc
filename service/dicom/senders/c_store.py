"""C-STORE: an association that stays open while results are due (PS3.4 Annex B)."""

from __future__ import annotations

import logging

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE
from pynetdicom.association import Association

from service.dicom.destinations import CStoreDestination
from service.dicom.entries import Leased
from service.dicom.senders.client_tls import client_tls
from service.dicom.senders.payloads import report_of
from service.dicom.senders.sender import RejectedError, RetryableError, Warned
from service.dicom.senders.statuses import DUPLICATE, WARNINGS, is_busy, is_later

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it may log what objects hold


class CStoreSender:
    """Stores reports at one application entity."""

    def __init__(self, destination: CStoreDestination) -> None:
        self._destination = destination
        self._association: Association | None = None

    def send(self, leased: Leased) -> Warned | None:
        """See Sender."""
        report = report_of(leased.payload)
        association = self._associated()
        try:
            status = association.send_c_store(report)
        except (RuntimeError, OSError) as error:  # the association has ended
            self.close()
            raise RetryableError("unreachable", "the association ended", away=True) from error
        if "Status" not in status:
            self.close()
            detail = "the association ended before a status came"
            raise RetryableError("timeout", detail, away=True)
        return _outcome(int(status.Status))

    def idle(self) -> None:
        """Release the association; many servers allow few."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def close(self) -> None:
        """Abort the association, if it is still there."""
        if self._association is not None and self._association.is_established:
            self._association.abort()
        self._association = None

    def _associated(self) -> Association:
        if self._association is None or not self._association.is_established:
            self._association = self._opened()
        return self._association

    def _opened(self) -> Association:
        given = self._destination
        entity = AE(given.calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = given.timeout_seconds
        entity.network_timeout = entity.connection_timeout = given.timeout_seconds
        entity.add_requested_context(Comprehensive3DSRStorage, SYNTAXES)
        tls = (client_tls(given), given.host) if given.tls else None
        try:
            found = entity.associate(
                given.host, given.port, ae_title=given.called_ae_title, tls_args=tls
            )
        except OSError as error:  # its name does not resolve
            raise RetryableError("unreachable", type(error).__name__, away=True) from None
        if found.is_rejected:
            raise RetryableError("association_rejected", "the association is rejected", away=True)
        if found.rejected_contexts:
            found.abort()
            raise RejectedError("it accepts no Comprehensive 3D SR")
        if not found.is_established:
            raise RetryableError("unreachable", "no association", away=True)
        return found


def _outcome(status: int) -> Warned | None:
    detail = f"status {status:04X}H"
    if status == 0:
        return None
    if status == DUPLICATE or status in WARNINGS:
        return Warned(detail)
    if is_busy(status):
        raise RetryableError("busy", detail)
    if is_later(status):
        raise RetryableError("server_error", detail)
    raise RejectedError(detail)
