"""What the outbox stores, and its errors. Loads no database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from service.database.schema import AwayError

State = Literal["pending", "leased", "delivered", "dead", "dropped"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("pending", "leased")  # not delivered yet, and still tried
LARGEST_ID = 2**63 - 1  # of a delivery, in the databases


class OutboxError(Exception):
    """A base class: the outbox refuses or fails."""


class OutboxAwayError(OutboxError, AwayError):
    """The database is locked or full, or does not answer."""

    code: ClassVar[str] = "outbox_away"


class UnknownDeliveryError(OutboxError):
    """There is no delivery with this id."""

    code: ClassVar[str] = "unknown_delivery"


class DeliveryStateError(OutboxError):
    """The delivery's state does not allow this."""

    code: ClassVar[str] = "delivery_state"


class DeliveriesDisabledError(Exception):
    """The service runs without destinations."""

    code: ClassVar[str] = "deliveries_disabled"


@dataclass(frozen=True)
class Entry:
    """A result for one destination, in the form that it takes."""

    destination: str  # its name
    payload: bytes = field(repr=False)  # PHI


@dataclass(frozen=True)
class Leased:
    """A delivery that belongs to one sender until its lease expires."""

    id: int
    destination: str
    sop_instance_uid: str  # of the source
    payload: bytes = field(repr=False)  # PHI
    attempts: int  # including this one
    created: float  # this and the next: seconds since 1970
    failing_since: float | None
    lease: str


@dataclass(frozen=True)
class Delivery:
    """A delivery as operators see it: without its payload."""

    id: int
    destination: str
    sop_instance_uid: str  # of the source
    model: str
    state: State
    attempts: int
    code: str | None  # of the last failure, or of a warning of the destination
    detail: str | None
    created: float  # this and the next two: seconds since 1970
    due: float | None  # not before; of a leased one: when its lease expires
    ended: float | None


@dataclass(frozen=True)
class Counts:
    """How many deliveries of one destination there are."""

    states: dict[State, int]
    oldest_seconds: float  # the age of the oldest one that is pending or leased; 0: there is none
