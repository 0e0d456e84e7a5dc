"""The decisions of persons about the images of jobs, in the ledger's database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from service.backfill.ledger.queries import slices
from service.backfill.ledger.readings import (
    Decision,
    Entry,
    Readings,
    Role,
    UnknownInstanceError,
    standing,
)
from service.backfill.ledger.tables import DECISIONS, ITEMS
from service.backfill.ledger.texts import decoded, hash_of
from service.database.database import Database

COLUMNS = [DECISIONS.c[name] for name in ("item", "reader", "role", "decision", "decided")]


class Decisions:
    """Adds decisions, each in its own transaction, and reads them.

    Args:
        database: The ledger's.
        now: A clock, in seconds since 1970.

    Raises:
        LedgerAwayError: From every method: the database is locked or full, or does not answer.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def add(self, job: str, item: int, reader: str, role: Role, decision: Decision | None) -> Entry:
        """Add a decision; when this returns, it is on the disk.

        The same decision again adds nothing, so that a request may be repeated.

        Args:
            job: The id of the job.
            item: The number of the image.
            reader: The name of the person's client.
            role: As one of two readers, or as the adjudicator where they differ.
            decision: None takes this person's decision back, if there is one.

        Raises:
            UnknownInstanceError: The job has no such image.
            ReviewStateError: The decisions that stand do not allow it.
        """
        with self._database.transaction() as connection:
            # Locks the row on PostgreSQL, so that no third reader gets in; SQLite has one writer
            wanted = sql.select(ITEMS.c.number).where(ITEMS.c.job == job, ITEMS.c.number == item)
            if connection.scalar(wanted.with_for_update()) is None:
                raise UnknownInstanceError("the job has no such image")
            before = self._history(connection, job, item)
            readings = standing(before).get(item, Readings())
            entry = Entry(item, reader, role, decision, self._now())
            if readings.of(reader, role) == decision:
                own = [each for each in before if (each.reader, each.role) == (reader, role)]
                return own[-1] if own else entry
            if decision is not None:
                readings.check(reader, role)
            connection.execute(sql.insert(DECISIONS).values(job=job, **vars(entry)))
        return entry

    def history(self, job: str) -> list[Entry]:
        """All that was decided and taken back in a job, in its order."""
        with self._database.reading() as connection:
            return self._history(connection, job)

    def standing(self, job: str) -> dict[int, Readings]:
        """The decisions of a job that stand, by the number of the image."""
        return standing(self.history(job))

    def locator(self, job: str, item: int) -> str:
        """The locator of an image in the job's source.

        Raises:
            UnknownInstanceError: The job has no such image.
        """
        wanted = sql.select(ITEMS.c.locator).where(ITEMS.c.job == job, ITEMS.c.number == item)
        with self._database.reading() as connection:
            found = connection.scalar(wanted)
        if found is None:
            raise UnknownInstanceError("the job has no such image")
        return decoded(found)

    def numbers(self, job: str, keys: Collection[str]) -> dict[str, int]:
        """The numbers of images that are done, by their keys; without those that are not."""
        hashes = {hash_of(key): key for key in keys}
        return {hashes[key]: number for key, number in self._numbers(job, list(hashes))}

    def _numbers(self, job: str, hashes: list[bytes]) -> Iterator[tuple[bytes, int]]:
        with self._database.reading() as connection:
            for some in slices(hashes):
                wanted = sql.select(ITEMS.c.key, ITEMS.c.number)
                found = connection.execute(wanted.where(ITEMS.c.job == job, ITEMS.c.key.in_(some)))
                yield from ((bytes(key), number) for key, number in found)

    def _history(self, connection: Connection, job: str, item: int | None = None) -> list[Entry]:
        wanted = sql.select(*COLUMNS).where(DECISIONS.c.job == job).order_by(DECISIONS.c.number)
        if item is not None:
            wanted = wanted.where(DECISIONS.c.item == item)
        return [Entry(*row) for row in connection.execute(wanted)]
