"""Who is told what peers do: the metrics, the log, and the audit log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from service.dicom.commands import Refusal
from service.dicom.statuses import Code, Reason, Status
from service.inference import Classification

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Called for the metrics and logs, in any thread."""

    # With the AE title, if the peer has named one, and the address of the peer
    rejected: Callable[[Reason, str, str], object]
    stored: Callable[[Code], object]


@dataclass(frozen=True)
class Records:
    """Called for the audit log, in any thread, with the AE title and address of the peer."""

    # May raise, if it could not be recorded; then the peer is not told success
    classified: Callable[[str, str, Classification], object]
    failed: Callable[[str, str, Status], object]


class Faults:
    """What one peer does wrong. The log has a line for each kind, so that none can fill it.

    Args:
        address: Of the peer.
        counts: See there.
        records: See there.
    """

    def __init__(self, address: str, counts: Counts, records: Records) -> None:
        self._address, self._counts, self._records = address, counts, records
        self._logged: set[str] = set()

    def malformed(self, title: str) -> None:
        """The association request was aborted because it is malformed."""
        self._counts.rejected("malformed", title, self._address)

    def aborted(self, title: str, reason: str) -> None:
        """An association that had been accepted is aborted."""
        LOG.warning("the association of %r at %s is aborted: %s", title, self._address, reason)

    def refused(self, title: str, refusal: Refusal) -> None:
        """A request is answered by a status, without being served."""
        if refusal.reason not in self._logged:
            self._logged.add(refusal.reason)
            said = f"{refusal.code:04X}H, {refusal.reason}"
            LOG.warning("a request of %r at %s is refused: %s", title, self._address, said)
        if refusal.status is not None:
            self._counts.stored(refusal.status.code)
            self._records.failed(title, self._address, refusal.status)
