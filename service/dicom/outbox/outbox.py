"""The outbox: what must be delivered, in a database that survives crashes.

A result is committed before its sender is told success. A destination's sender leases deliveries;
a lease that expires is due again. So a crash at any instant loses nothing, and repeats at most what
was leased. Destinations recognise such a repetition by the identifiers in the payload.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from service.database.database import Database
from service.dicom.entries import (
    OPEN,
    STATES,
    Counts,
    Delivery,
    DeliveryStateError,
    Entry,
    Leased,
    OutboxAwayError,
    State,
)
from service.dicom.outbox.queries import SHOWN, failure, lease_due, numbers, oldest, shown, some_due
from service.dicom.outbox.tables import ANSWERS, DELIVERIES, SCHEMA

PURGED = 1000  # rows of a transaction


class Outbox:
    """Answers and deliveries. Threads may share it.

    Args:
        url: An SQLAlchemy URL: `sqlite:///FILE`, or `postgresql+pg8000://...` for several replicas.
        now: A clock, in seconds since 1970; the clocks of all replicas must agree within seconds.
        create: Create the tables; without, a database that holds no outbox is refused.

    Raises:
        OutboxError: The database cannot be opened.
        OutboxAwayError: From every method: the database is locked or full, or does not answer.
    """

    def __init__(
        self, url: str, now: Callable[[], float] = time.time, *, create: bool = True
    ) -> None:
        self._now, self._database = now, Database(url, SCHEMA, create=create)
        self._reading = self._database.reading
        self._writing = Lock()  # fairer than SQLite's, which makes waiting threads sleep
        self._failed_at, self._failed_why = -1.0, ""  # of the last write that failed

    def close(self) -> None:
        """Close all connections."""
        self._database.engine.dispose()

    def answer(self, sop_instance_uid: str, model: str) -> str | None:
        """The stored answer of an instance that this model has answered before.

        Args:
            sop_instance_uid: Of the instance.
            model: As name/version.

        Returns:
            The JSON that `put` got; None if the instance is new, or was refused.
        """
        which = sql.and_(ANSWERS.c.sop_instance_uid == sop_instance_uid, ANSWERS.c.model == model)
        with self._reading() as connection:
            found: str | None = connection.scalar(sql.select(ANSWERS.c.answer).where(which))
        return found

    def put(
        self, sop_instance_uid: str, model: str, answer: str | None, entries: Sequence[Entry]
    ) -> bool:
        """Store an answer and what must be delivered of it; it is on the disk on return.

        Args:
            sop_instance_uid: Of the instance.
            model: As name/version.
            answer: JSON of its Classification; None: it was refused.
            entries: One for each destination that wants the result.

        Returns:
            False if this model's answer, or refusal, of the instance is stored already; then
            nothing changes.
        """
        now, same = self._now(), {"sop_instance_uid": sop_instance_uid, "model": model}
        rows = [
            same | vars(entry) | {"state": "pending", "due": now, "attempts": 0, "created": now}
            for entry in entries
        ]
        new = self._database.insert(ANSWERS).values(**same, answer=answer, created=now)
        with self._transaction(is_new=True) as connection:
            once = new.on_conflict_do_nothing().returning(ANSWERS.c.created)
            if connection.scalar(once) is None:
                return False
            if rows:  # a conflict: the answer was purged before its delivery
                connection.execute(self._database.insert(DELIVERIES).on_conflict_do_nothing(), rows)
        return True

    def lease(self, destination: str, most: int, seconds: float) -> list[Leased]:
        """Lease deliveries that are due, the longest due first.

        Args:
            destination: Its name.
            most: The most deliveries.
            seconds: Until the lease expires, and the deliveries are due again.
        """
        now, lease = self._now(), secrets.token_hex(16)
        values = {"state": "leased", "lease": lease, "due": now + seconds}
        statement = lease_due(destination, now, most, values)
        with self._transaction() as connection:
            found = [Leased(*row) for row in connection.execute(statement)]
        return sorted(found, key=lambda each: each.id)

    def renew(self, leased: Leased, seconds: float) -> bool:
        """Extend a lease to `seconds` from now; False if it has expired and another has it."""
        return self._settle(leased, {"due": self._now() + seconds}, keep=True)

    def delivered(self, leased: Leased, code: str | None = None, detail: str | None = None) -> bool:
        """The destination has it: remove its payload. `code` and `detail`: its warning, if any.

        Returns:
            False if the lease has expired and another has it, or the delivery was dropped.
        """
        return self._settle(leased, self._ended("delivered", code, detail) | {"payload": None})

    def retry_at(self, leased: Leased, at: float, code: str, detail: str) -> bool:
        """The attempt failed; the next one is not before `at`, in seconds since 1970.

        Returns:
            As `delivered`.
        """
        since = sql.func.coalesce(DELIVERIES.c.failing_since, self._now())
        values = {"state": "pending", "due": at, "failing_since": since}
        return self._settle(leased, values | failure(code, detail))

    def dead(self, leased: Leased, code: str, detail: str) -> bool:
        """It is not tried again, until an operator retries it. Its payload is kept.

        Returns:
            As `delivered`.
        """
        return self._settle(leased, self._ended("dead", code, detail))

    def release(self, leased: Leased) -> bool:
        """Give it back; the attempt is not counted.

        Returns:
            As `delivered`.
        """
        values = {"state": "pending", "due": self._now(), "attempts": DELIVERIES.c.attempts - 1}
        return self._settle(leased, values)

    def deliveries(
        self,
        state: State | None = None,
        destination: str | None = None,
        *,
        before: int | None = None,
        most: int = 100,
    ) -> list[Delivery]:
        """Deliveries, the newest first.

        Args:
            state: None: all.
            destination: None: all.
            before: Only those with a smaller id: the last one of the page before.
            most: Of one page.
        """
        statement = sql.select(*SHOWN).order_by(DELIVERIES.c.id.desc()).limit(most)
        if state is not None:
            statement = statement.where(DELIVERIES.c.state == state)
        if destination is not None:
            statement = statement.where(DELIVERIES.c.destination == destination)
        if before is not None:
            statement = statement.where(DELIVERIES.c.id < before)
        with self._reading() as connection:
            return [Delivery(*row) for row in connection.execute(statement)]

    def delivery(self, delivery: int) -> Delivery:
        """One delivery.

        Raises:
            UnknownDeliveryError: There is none with this id.
        """
        with self._reading() as connection:
            return shown(connection, delivery)

    def counts(self) -> dict[str, Counts]:
        """Numbers and ages by destination, of all that have deliveries."""
        with self._reading() as connection:
            found = connection.execute(numbers()).all()
            ages = {name: self._now() - since for name, since in connection.execute(oldest())}
        states: dict[str, dict[State, int]] = {}
        for name, state, number in found:
            states.setdefault(name, dict.fromkeys(STATES, 0))[state] = number
        return {name: Counts(each, max(ages.get(name, 0), 0)) for name, each in states.items()}

    def due(self, destinations: Collection[str]) -> bool:
        """Whether any of these destinations has deliveries that are due now."""
        with self._reading() as connection:
            return connection.scalar(some_due(destinations, self._now())) is not None

    def retry(self, delivery: int) -> Delivery:
        """Make a dead or pending delivery due now, as if it had never failed.

        Raises:
            UnknownDeliveryError: There is none with this id.
            DeliveryStateError: It is leased, delivered or dropped.
        """
        values = {"state": "pending", "due": self._now(), "failing_since": None, "ended": None}
        return self._change(delivery, ("dead", "pending"), values, "retried")

    def drop(self, delivery: int) -> Delivery:
        """Never deliver it; its payload is removed. A sender that has leased it may be faster.

        Raises:
            UnknownDeliveryError: There is none with this id.
            DeliveryStateError: It is delivered.
        """
        values = self._ended("dropped") | {"payload": None, "lease": None}
        return self._change(delivery, (*OPEN, "dead", "dropped"), values, "dropped")

    def purge(self, destination: str, before: float) -> int:
        """Delete deliveries that ended before then, dead ones with their payload; returns how many.

        Args:
            destination: Its name.
            before: Seconds since 1970.
        """
        ended = sql.and_(DELIVERIES.c.destination == destination, DELIVERIES.c.ended < before)
        return self._purge(DELIVERIES.c.id, ended)

    def purge_answers(self, before: float) -> int:
        """Delete answers stored before then; returns how many.

        An instance that comes again later is classified again.

        Args:
            before: Seconds since 1970.
        """
        return self._purge(ANSWERS.c.sop_instance_uid, ANSWERS.c.created < before)

    def _purge(self, key: sql.Column[Any], which: sql.ColumnElement[bool]) -> int:
        purged, last = 0, PURGED
        while last >= PURGED:  # in several transactions, so that others need not wait for long
            some = sql.select(key).where(which).limit(PURGED).scalar_subquery()
            statement = sql.delete(key.table).where(which, key.in_(some))
            with self._transaction() as connection:
                last = connection.execute(statement).rowcount
            purged += last
        return purged

    def _ended(
        self, state: State, code: str | None = None, detail: str | None = None
    ) -> dict[str, Any]:
        return {"state": state, "due": None, "ended": self._now()} | failure(code, detail)

    def _settle(self, leased: Leased, values: Mapping[str, Any], *, keep: bool = False) -> bool:
        held = sql.and_(DELIVERIES.c.id == leased.id, DELIVERIES.c.lease == leased.lease)
        change = sql.update(DELIVERIES).where(held).values(**values)
        with self._transaction() as connection:
            return bool(connection.execute(change if keep else change.values(lease=None)).rowcount)

    def _change(
        self, delivery: int, states: Collection[State], values: Mapping[str, Any], what: str
    ) -> Delivery:
        which = sql.and_(DELIVERIES.c.id == delivery, DELIVERIES.c.state.in_(states))
        with self._transaction() as connection:
            changed = connection.execute(sql.update(DELIVERIES).where(which).values(**values))
            found = shown(connection, delivery)
            if not changed.rowcount:
                detail = f"delivery {delivery} is {found.state}: it cannot be {what}"
                raise DeliveryStateError(detail)
        return found

    @contextmanager
    def _transaction(self, *, is_new: bool = False) -> Iterator[Connection]:
        asked = time.monotonic()
        with self._writing:
            if self._failed_at > asked:  # while this one waited; a lock would hold each up in turn
                raise OutboxAwayError(self._failed_why)
            try:
                with self._database.transaction(is_new=is_new) as connection:
                    yield connection
            except OutboxAwayError as error:
                self._failed_at, self._failed_why = time.monotonic(), str(error)
                raise
