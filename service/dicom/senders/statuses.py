"""What a status of C-STORE, or a Failure Reason of STOW-RS, means for the next attempt.

References:
    DICOM PS3.4 Table B.2-1, PS3.7 Annex C, PS3.18 Table 10.5.3-1 and PS3.3 C.12.1.1.12.
"""

from __future__ import annotations

DUPLICATE = 0x0111  # Duplicate SOP Instance: the destination has it
WARNINGS = frozenset({0x0001, 0x0107, 0x0116}) | frozenset(range(0xB000, 0xC000))
NO_REASON = 0
# SOP Class not supported, and not authorised: of all reports, until someone changes the destination
AWAY = frozenset({0x0122, 0x0124})
PENDING = frozenset({0xFE00, 0xFF00, 0xFF01})  # Cancel and Pending: no statuses of C-STORE
# Processing failure, duplicate invocation, resource limitation; and A7xxH, out of resources
LATER = AWAY | {NO_REASON, 0x0110, 0x0210, 0x0213}


def is_later(status: int) -> bool:
    """Whether the same object may be stored by a later attempt."""
    return status in LATER or 0xA700 <= status <= 0xA7FF


def is_busy(status: int) -> bool:
    """Whether the destination is out of resources, for other objects too."""
    return 0xA700 <= status <= 0xA7FF


def is_away(status: int) -> bool:
    """Whether it says nothing about this object, and holds for others too."""
    return status in AWAY
