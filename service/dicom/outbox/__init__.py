"""The outbox: results that must reach their destinations, in a database."""

from service.dicom.entries import Entry
from service.dicom.outbox.outbox import Outbox

__all__ = ["Entry", "Outbox"]
