"""The A-ASSOCIATE-RQ of a peer, checked before pynetdicom sees it.

pynetdicom's thread ends at one that it cannot understand, and the peer gets no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pynetdicom.pdu import A_ASSOCIATE_RQ

from service.dicom.callers import AE_TITLE
from service.dicom.pdu import ASSOCIATE_RQ, HEADER, PduError, sub_item, sub_items
from service.dicom.statuses import Reason

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # the DICOM application context (PS3.7 A.2.1)
# Places in the PDU (PS3.8 9.3.2)
VERSION, CALLED, CALLING = slice(6, 8), slice(10, 26), slice(26, 42)
FIXED_BYTES = 74
VERSION_1 = b"\0\1"  # its bit; of the other bits nothing is to be concluded
ANY_TITLE = b"?".ljust(16)  # for pynetdicom, in place of one that is none
# 128 presentation contexts of 14 transfer syntaxes have 60 KB and 2,000 items. More extended
# negotiation and more syntaxes fit; what takes pynetdicom much longer to decode does not.
MAX_REQUEST_BYTES, MAX_ITEMS = 2**17, 2**13
# The items that matter: their types, and where their own items begin, of which types. All others
# are left out: those that are not recognised (PS3.8 9.3.1, D.2), and proposals that are ignored.
APPLICATION, CONTEXT, USER_INFORMATION = 0x10, 0x20, 0x50
NESTED = {
    CONTEXT: (4, frozenset({0x30, 0x40})),  # abstract syntax, transfer syntaxes
    USER_INFORMATION: (0, frozenset({0x51, 0x52, 0x55})),  # largest PDU, implementation
}
ITEMS = frozenset({APPLICATION, *NESTED})


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
        MalformedRequestError: It is cut off or too large, or it has an invalid or repeated
            presentation context, or no application context or user information.
    """
    called, calling = _title(pdu[CALLED]), _title(pdu[CALLING])
    readable = bytearray(pdu)
    readable[VERSION] = VERSION_1
    for title, place in ((called, CALLED), (calling, CALLING)):
        if not title:
            readable[place] = ANY_TITLE
    found = A_ASSOCIATE_RQ()
    try:
        if not FIXED_BYTES <= len(pdu) <= MAX_REQUEST_BYTES:
            raise ValueError
        recognised = _recognised(bytes(readable))
        found.decode(recognised)
        found.to_primitive()
        _check_items(found)
    except Exception:  # noqa: BLE001  # which errors pynetdicom raises is not documented
        raise MalformedRequestError(calling) from None
    has_version_1 = bool(pdu[VERSION][1] & VERSION_1[1])
    context = str(found.application_context_name)
    return Checked(AssociationRequest(called, calling, has_version_1, context), recognised)


def _title(field: bytes) -> str:
    title = field.decode("latin-1").strip(" ")
    return title if AE_TITLE.fullmatch(title) else ""


def _recognised(pdu: bytes) -> bytes:
    """The request with the items that matter.

    Raises:
        PduError: An item is cut off.
        ValueError: There are too many.
    """
    found, count = [], 0
    for kind, body in sub_items(pdu[FIXED_BYTES:]):
        if kind not in ITEMS:
            continue
        start, kinds = NESTED.get(kind, (len(body), frozenset()))
        nested = [sub_item(*each) for each in sub_items(body[start:]) if each[0] in kinds]
        found.append(sub_item(kind, body[:start] + b"".join(nested)))
        count += 1 + len(nested)
        if count > MAX_ITEMS:
            raise ValueError
    body = pdu[HEADER.size : FIXED_BYTES] + b"".join(found)
    return HEADER.pack(ASSOCIATE_RQ, len(body)) + body


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
