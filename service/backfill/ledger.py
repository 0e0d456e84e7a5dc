"""What has become of each image of an archive: a database that a crash cannot make wrong.

Work is leased in chunks. What a chunk came to is committed in one transaction, together with the
name of the file that holds its results; a lease that ran out may be given to somebody else, and
whoever had it then commits nothing. So a crash at any instant loses nothing, and repeats at most
the leased chunks.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from service.backfill.database import Database, decoded, encoded, hash_of
from service.backfill.jobs import (
    Item,
    Job,
    JobConflictError,
    JobState,
    Lease,
    LeaseLostError,
    Part,
    Settled,
    UnknownJobError,
)
from service.backfill.tables import ITEMS, JOBS, PARTS

PART = (PARTS.c.name, PARTS.c.rows, PARTS.c.bytes, PARTS.c.sha256)
# How many images are leased together after so many deaths of workers; one, after more
SUSPECTS = {1: 100, 2: 10}
CRASHED = {"state": "pending", "lease": None, "crashes": ITEMS.c.crashes + 1}
LOOKED_UP = 500  # parameters of one query; SQLite takes no more than some thousands


class Ledger:
    """Jobs, images and parts.

    Args:
        url: As SQLAlchemy takes it: `sqlite:///FILE`, or `postgresql+pg8000://...` for several
            workers on several machines.
        now: A clock, in seconds since 1970; those of all workers must agree to within seconds.

    Raises:
        LedgerError: The database cannot be used.
    """

    def __init__(self, url: str, now: Callable[[], float] = time.time) -> None:
        self._now, self._database = now, Database(url)
        self._transaction, self._reading = self._database.transaction, self._database.reading

    def close(self) -> None:
        """Give all connections back."""
        self._database.engine.dispose()

    def open_job(self, key: str, description: Mapping[str, Any]) -> Job:
        """The job of this key, made if there is none.

        Raises:
            JobConflictError: It was made with another description.
        """
        text = json.dumps(description, sort_keys=True)
        new = {"id": secrets.token_hex(16), "key": key, "description": text, "state": "running"}
        with self._transaction() as connection:
            statement = self._database.insert(JOBS).values(**new, created=self._now())
            connection.execute(statement.on_conflict_do_nothing())
            found = connection.execute(sql.select(JOBS).where(JOBS.c.key == key)).one()
        if found.description != text:
            raise JobConflictError(f"the job {key} was made with other sources or settings")
        return _job(found)

    def job(self, job: str) -> Job:
        """As it is now.

        Raises:
            UnknownJobError: There is none.
        """
        with self._reading() as connection:
            found = connection.execute(sql.select(JOBS).where(JOBS.c.id == job)).one_or_none()
        if found is None:
            raise UnknownJobError(f"no job {job}")
        return _job(found)

    def jobs(self) -> list[Job]:
        """All of them, the newest first."""
        with self._reading() as connection:
            found = connection.execute(sql.select(JOBS).order_by(JOBS.c.created.desc()))
            return [_job(each) for each in found]

    def set_state(self, job: str, state: JobState, reason: str | None = None) -> None:
        """Say whether work on a job goes on."""
        values: dict[str, Any] = {"state": state, "reason": reason, "ended": None}
        if state == "running":
            values["started"] = sql.func.coalesce(JOBS.c.started, self._now())
        else:
            values["ended"] = self._now()
        self._update(JOBS, JOBS.c.id == job, values)

    def add(self, job: str, locators: Iterable[str]) -> int:
        """Write down what was found; returns how many were not known."""
        rows = [{"job": job, "place": hash_of(each), "locator": encoded(each)} for each in locators]
        if not rows:
            return 0
        with self._transaction() as connection:
            statement = self._database.insert(ITEMS).on_conflict_do_nothing()
            added = sum(
                connection.execute(statement.values(rows[at : at + LOOKED_UP])).rowcount
                for at in range(0, len(rows), LOOKED_UP)
            )
            _count(connection, job, {"found": added})
        return added

    def complete(self, job: str) -> None:
        """Everything in the archive has been found."""
        self._update(JOBS, JOBS.c.id == job, {"complete": True})

    def lease(self, job: str, most: int, seconds: float) -> Lease | None:
        """Images that nobody has, in the order in which they were found; None where there is none.

        Those whose workers have died come last, and in ever smaller leases: so one image at which
        every worker dies is found, and does not take others with it.

        Args:
            job: Its id.
            most: Images.
            seconds: After which they may be given to others.
        """
        now, lease = self._now(), secrets.token_hex(16)
        expired = sql.and_(ITEMS.c.state == "leased", ITEMS.c.lease_until < now)
        with self._transaction() as connection:
            lost = sql.and_(ITEMS.c.job == job, expired)
            connection.execute(sql.update(ITEMS).where(lost).values(**CRASHED))
            free = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "pending")
            by_crashes = sql.select(ITEMS.c.crashes).where(free).order_by(ITEMS.c.crashes).limit(1)
            crashes = connection.scalar(by_crashes)
            if crashes is None:
                return None
            chosen = (
                sql.select(ITEMS.c.number)
                .where(free, ITEMS.c.crashes == crashes)
                .order_by(ITEMS.c.number)
                .limit(min(most, SUSPECTS.get(crashes, 1)) if crashes else most)
                .with_for_update(skip_locked=True)  # in SQLite one writes at a time anyway
            )
            statement = (
                sql.update(ITEMS)
                .where(ITEMS.c.number.in_(chosen))
                .values(state="leased", lease=lease, lease_until=now + seconds)
                .values(attempts=ITEMS.c.attempts + 1)
                .returning(ITEMS.c.number, ITEMS.c.locator, ITEMS.c.attempts)
            )
            found = sorted(connection.execute(statement).all())
        items = tuple(Item(number, decoded(place), tries) for number, place, tries in found)
        return Lease(lease, job, items, crashes) if items else None

    def take_back(self, job: str) -> int:
        """For whoever knows that no other worker lives: free what they had; returns how many."""
        leased = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "leased")
        with self._transaction() as connection:
            return connection.execute(sql.update(ITEMS).where(leased).values(**CRASHED)).rowcount

    def renew(self, lease: Lease, seconds: float) -> None:
        """Keep what is leased for longer."""
        self._update(ITEMS, _of(lease), {"lease_until": self._now() + seconds})

    def release(self, lease: Lease) -> None:
        """Give back, untried, what has no outcome."""
        with self._transaction() as connection:
            _release(connection, lease)

    def known(self, job: str, keys: Collection[str]) -> set[str]:
        """Which of these keys images have that are done."""
        hashes = {hash_of(key): key for key in keys}
        found: set[str] = set()
        with self._reading() as connection:
            for some in _slices(list(hashes)):
                statement = sql.select(ITEMS.c.key).where(ITEMS.c.job == job, ITEMS.c.key.in_(some))
                found |= {hashes[bytes(each)] for each in connection.scalars(statement)}
        return found

    def commit(self, lease: Lease, settled: Sequence[Settled], part: Part | None) -> None:
        """What a lease's images came to, and the part that says so; the others are given back.

        Raises:
            LeaseLostError: Others have them, or an image with the same key was done meanwhile.
        """
        rows = [
            {"n": each.number, "s": each.state, "c": each.code, "k": each.key and hash_of(each.key)}
            for each in settled
        ]
        with self._transaction() as connection:
            held = sql.select(sql.func.count()).select_from(ITEMS).where(_of(lease))
            if connection.scalar(held) != len(lease.items):
                raise LeaseLostError("the lease ran out, and others have its images")
            if rows:
                statement = (
                    sql.update(ITEMS)
                    .where(ITEMS.c.number == sql.bindparam("n"))
                    .values(state=sql.bindparam("s"), code=sql.bindparam("c"))
                    .values(key=sql.bindparam("k"), lease=None, part=part and part.name)
                )
                try:
                    connection.execute(statement, rows)
                except IntegrityError as error:
                    raise LeaseLostError("an image was done a second time meanwhile") from error
            if part is not None:
                connection.execute(sql.insert(PARTS).values(job=lease.job, **vars(part)))
            _release(connection, lease)
            counts = dict.fromkeys(("done", "skipped", "failed"), 0)
            for each in settled:
                counts[each.state] += 1
            _count(connection, lease.job, counts)

    def end(self, job: str, failures: Sequence[Part]) -> list[Part] | None:
        """Nothing is open any more: these parts say what failed, in the place of older ones.

        Returns:
            The older ones; None if somebody else has ended the job meanwhile.
        """
        values = {"state": "done", "reason": None, "ended": self._now()}
        ending = sql.and_(JOBS.c.id == job, JOBS.c.state != values["state"])
        old = sql.and_(PARTS.c.job == job, PARTS.c.failures)
        with self._transaction() as connection:
            if not connection.execute(sql.update(JOBS).where(ending).values(**values)).rowcount:
                return None
            gone = connection.execute(sql.select(*PART).where(old)).all()
            connection.execute(sql.delete(PARTS).where(old))
            for part in failures:
                connection.execute(sql.insert(PARTS).values(job=job, failures=True, **vars(part)))
        return [Part(*each) for each in gone]

    def parts(self, job: str) -> list[Part]:
        """All files of results, in the order of their names."""
        statement = sql.select(*PART)
        with self._reading() as connection:
            found = connection.execute(statement.where(PARTS.c.job == job).order_by(PARTS.c.name))
            return [Part(*each) for each in found]

    def leases(self, job: str) -> set[str]:
        """Those that have images; also where they ran out, and nobody has taken them yet."""
        leased = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "leased")
        with self._reading() as connection:
            return set(connection.scalars(sql.select(ITEMS.c.lease).distinct().where(leased)))

    def retry_failed(self, job: str) -> int:
        """Try again what failed; returns how many."""
        failed = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "failed")
        values = {"state": "pending", "code": None, "part": None, "crashes": 0}
        with self._transaction() as connection:
            count = connection.execute(sql.update(ITEMS).where(failed).values(**values)).rowcount
            _count(connection, job, {"failed": -count})
        return count

    def failures(self, job: str) -> Iterator[tuple[str, str, int]]:
        """Locator, code and attempts of all that failed, in the order in which they were found."""
        columns = (ITEMS.c.number, ITEMS.c.locator, ITEMS.c.code, ITEMS.c.attempts)
        last = 0
        while True:
            statement = (
                sql.select(*columns)
                .where(ITEMS.c.job == job, ITEMS.c.state == "failed", ITEMS.c.number > last)
                .order_by(ITEMS.c.number)
                .limit(LOOKED_UP)
            )
            with self._reading() as connection:
                found = connection.execute(statement).all()
            if not found:
                return
            yield from ((decoded(each.locator), each.code, each.attempts) for each in found)
            last = found[-1].number

    def codes(self, job: str) -> dict[str, int]:
        """How many were skipped or failed, by code."""
        statement = (
            sql.select(ITEMS.c.code, sql.func.count())
            .where(ITEMS.c.job == job, ITEMS.c.state.in_(("skipped", "failed")))
            .group_by(ITEMS.c.code)
        )
        with self._reading() as connection:
            return {each.code: each[1] for each in connection.execute(statement)}

    def _update(self, table: sql.Table, which: Any, values: Mapping[str, Any]) -> None:
        with self._transaction() as connection:
            connection.execute(sql.update(table).where(which).values(**values))


def _job(row: Any) -> Job:
    counts = {name: getattr(row, name) for name in ("found", "done", "skipped", "failed")}
    description = json.loads(row.description)
    times = (row.created, row.started, row.ended)
    return Job(row.id, row.key, description, row.state, row.complete, counts, *times, row.reason)


def _of(lease: Lease) -> Any:
    return sql.and_(
        ITEMS.c.number.in_([item.number for item in lease.items]), ITEMS.c.lease == lease.id
    )


def _release(connection: Connection, lease: Lease) -> None:
    untried = {"state": "pending", "lease": None, "attempts": ITEMS.c.attempts - 1}
    leased = sql.and_(_of(lease), ITEMS.c.state == "leased")
    connection.execute(sql.update(ITEMS).where(leased).values(**untried))


def _count(connection: Connection, job: str, changes: Mapping[str, int]) -> None:
    values = {name: JOBS.c[name] + change for name, change in changes.items()}
    connection.execute(sql.update(JOBS).where(JOBS.c.id == job).values(**values))


def _slices(values: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(values), LOOKED_UP):
        yield values[at : at + LOOKED_UP]
