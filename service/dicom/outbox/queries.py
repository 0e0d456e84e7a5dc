"""SQL statements of the outbox, and what their rows become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from service.dicom.entries import Delivery, UnknownDeliveryError
from service.dicom.outbox.tables import DELIVERIES

SHOWN = tuple(
    DELIVERIES.c[name]
    for name in (
        *("id", "destination", "sop_instance_uid", "model", "state", "attempts"),
        *("code", "detail", "created", "due", "ended"),
    )
)
LEASED = tuple(
    DELIVERIES.c[name]
    for name in (
        *("id", "destination", "sop_instance_uid", "payload", "attempts", "created"),
        *("failing_since", "lease"),
    )
)
DETAIL_CHARACTERS = 500


def lease_due(destination: str, now: float, most: int, values: Mapping[str, Any]) -> Any:
    """Lease the deliveries that are due; returns the columns of `Leased`."""
    due = (
        sql.select(DELIVERIES.c.id)
        .where(DELIVERIES.c.destination == destination, DELIVERIES.c.due <= now)
        .order_by(DELIVERIES.c.due, DELIVERIES.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)  # ignored by SQLite, which has one writer at a time
        .cte("due")
    )
    return (
        sql.update(DELIVERIES)
        .where(DELIVERIES.c.id.in_(sql.select(due.c.id)))
        .values(**values, attempts=DELIVERIES.c.attempts + 1)
        .returning(*LEASED)
    )


def some_due(destinations: Any, now: float) -> Any:
    """Select one delivery that is due for any of these destinations."""
    of_them = DELIVERIES.c.destination.in_(destinations)
    return sql.select(DELIVERIES.c.id).where(of_them, DELIVERIES.c.due <= now).limit(1)


def numbers() -> Any:
    """Select the numbers of deliveries by destination and state."""
    names = (DELIVERIES.c.destination, DELIVERIES.c.state)
    return sql.select(*names, sql.func.count()).group_by(*names)


def oldest() -> Any:
    """Select when the oldest delivery was created that is still tried, by destination."""
    created = sql.func.min(DELIVERIES.c.created)
    still = DELIVERIES.c.due.is_not(None)
    return (
        sql.select(DELIVERIES.c.destination, created)
        .where(still)
        .group_by(DELIVERIES.c.destination)
    )


def shown(connection: Connection, delivery: int) -> Delivery:
    """One delivery.

    Raises:
        UnknownDeliveryError: There is none with this id.
    """
    statement = sql.select(*SHOWN).where(DELIVERIES.c.id == delivery)
    found = connection.execute(statement).one_or_none()
    if found is None:
        raise UnknownDeliveryError(f"no delivery {delivery}")
    return Delivery(*found)


def failure(code: str | None, detail: str | None) -> dict[str, str | None]:
    """The columns that say why an attempt failed, or what a destination warned of."""
    return {"code": code, "detail": detail and detail[:DETAIL_CHARACTERS]}
