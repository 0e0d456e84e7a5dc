"""The A-ASSOCIATE-RQ of a peer, checked before pynetdicom sees it.

pynetdicom's thread ends at one that it cannot understand, and the peer gets no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pynetdicom.pdu import A_ASSOCIATE_RQ

from service.dicom.callers import AE_TITLE
from service.dicom.pdu import PduError
from service.dicom.statuses import Reason

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # the DICOM application context (PS3.7 A.2.1)
# Places in the PDU (PS3.8 9.3.2)
VERSION, CALLED, CALLING = slice(6, 8), slice(10, 26), slice(26, 42)
FIXED_BYTES = 74
VERSION_1 = b"\0\1"  # its bit; of the other bits nothing is to be concluded
ANY_TITLE = b"?".ljust(16)  # for pynetdicom, in place of one that is none


class MalformedRequestError(PduError):
    """The request cannot be understood, so that it is aborted instead of being rejected."""

    code: ClassVar[str] = "malformed"

    def __init__(self, title: str) -> None:
        super().__init__("a malformed association request")
        self.title = title  # the calling AE title; empty: none that is valid


@dataclass(frozen=True)
class AssociationRequest:
    """What decides whether an association is rejected."""

    called: str  # AE titles; empty: none that is valid, such as 16 spaces
    calling: str
    has_version_1: bool
    application_context: str

    @property
    def fault(self) -> Reason | None:
        """Why no peer may ask so; None: it depends on the peer."""
        if not self.has_version_1:
            return "protocol_version"
        if self.application_context != APPLICATION_CONTEXT:
            return "application_context"
        if not self.called:
            return "called_ae"
        return None if self.calling else "calling_ae"


class Checked(NamedTuple):
    """A request, and the same for pynetdicom."""

    request: AssociationRequest
    pdu: bytes  # with values that pynetdicom accepts, so that the receiver rejects the others


def check_request(pdu: bytes) -> Checked:
    """Read a whole A-ASSOCIATE-RQ.

    Raises:
        MalformedRequestError: It is cut off, or it has an invalid or repeated presentation context,
            or no application context or user information.
    """
    called, calling = _title(pdu[CALLED]), _title(pdu[CALLING])
    readable = bytearray(pdu)
    readable[VERSION] = VERSION_1
    for title, place in ((called, CALLED), (calling, CALLING)):
        if not title:
            readable[place] = ANY_TITLE
    found = A_ASSOCIATE_RQ()
    try:
        if len(pdu) < FIXED_BYTES:
            raise ValueError
        found.decode(bytes(readable))
        found.to_primitive()
        _check_items(found)
    except Exception:  # noqa: BLE001  # which errors pynetdicom raises is not documented
        raise MalformedRequestError(calling) from None
    has_version_1 = bool(pdu[VERSION][1] & VERSION_1[1])
    context = str(found.application_context_name)
    return Checked(AssociationRequest(called, calling, has_version_1, context), bytes(readable))


def _title(field: bytes) -> str:
    title = field.decode("latin-1").strip(" ")
    return title if AE_TITLE.fullmatch(title) else ""


def _check_items(found: A_ASSOCIATE_RQ) -> None:
    """Check what pynetdicom does not.

    Raises:
        ValueError: Items are missing, or a number of a presentation context is repeated.
    """
    contexts = found.presentation_context
    numbers = {each.context_id for each in contexts}
    if not contexts or len(numbers) < len(contexts):
        raise ValueError
    if not all(each.abstract_syntax and each.transfer_syntax for each in contexts):
        raise ValueError
    if not found.application_context_name or found.user_information is None:
        raise ValueError
