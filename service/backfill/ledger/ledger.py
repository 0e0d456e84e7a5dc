"""The ledger: the outcome of each image of an archive, in a database that survives crashes.

A worker leases images in chunks. It commits the outcomes of a chunk in one transaction, together
with the name of the file that holds their rows. When a lease expires, another worker may take its
images, and the first one can no longer commit them. So a crash at any instant loses nothing, and
repeats at most the leased chunks.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from service.backfill.ledger.decisions import Decisions
from service.backfill.ledger.jobs import (
    Item,
    Job,
    JobConflictError,
    JobState,
    Lease,
    LeaseLostError,
    Part,
    Settled,
    UnknownJobError,
    own_ids,
)
from service.backfill.ledger.queries import (
    CRASHED,
    LOOKED_UP,
    PART,
    count,
    held_by,
    job_of,
    lease_some,
    least_crashes,
    release,
    settle,
    slices,
)
from service.backfill.ledger.tables import ITEMS, JOBS, PARTS, SCHEMA
from service.backfill.ledger.texts import decoded, encoded, hash_of
from service.database.database import Database

# The size of a lease by the crash count of its images; 1 image for higher counts
SUSPECTS = {1: 100, 2: 10}


class Ledger:
    """Jobs, images and parts.

    Args:
        url: An SQLAlchemy URL: `sqlite:///FILE`, or `postgresql+pg8000://...` for workers on
            several machines.
        now: A clock, in seconds since 1970; the clocks of all workers must agree within seconds.

    Raises:
        LedgerError: The database cannot be opened.
        LedgerAwayError: From every method: the database is locked or full, or does not answer.
    """

    def __init__(self, url: str, now: Callable[[], float] = time.time) -> None:
        self._now, self._database = now, Database(url, SCHEMA)
        self._transaction, self._reading = self._database.transaction, self._database.reading
        self.decisions = Decisions(self._database, now)
        # By job, the number of the image that was leased last. A search starts there, because
        # PostgreSQL keeps dead index entries until the next VACUUM, and would read all of them
        self._leased: dict[str, int] = {}

    def close(self) -> None:
        """Close all connections."""
        self._database.engine.dispose()

    def open_job(self, key: str, description: Mapping[str, Any]) -> Job:
        """The job with this key, created if there is none.

        Raises:
            JobConflictError: The job exists with another description.
        """
        text = json.dumps(description, sort_keys=True)
        new = {"id": secrets.token_hex(16), "key": key, "description": text, "state": "running"}
        with self._transaction() as connection:
            statement = self._database.insert(JOBS).values(**new, created=self._now())
            connection.execute(statement.on_conflict_do_nothing())
            found = connection.execute(sql.select(JOBS).where(JOBS.c.key == key)).one()
        if found.description != text:
            raise JobConflictError(f"the job {key} was made with other sources or settings")
        return job_of(found)

    def job(self, job: str) -> Job:
        """The job in its current state.

        Raises:
            UnknownJobError: There is none.
        """
        with self._reading() as connection:
            found = connection.execute(sql.select(JOBS).where(JOBS.c.id == job)).one_or_none()
        if found is None:
            raise UnknownJobError(f"no job {job}")
        return job_of(found)

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        with self._reading() as connection:
            found = connection.execute(sql.select(JOBS).order_by(JOBS.c.created.desc()))
            return [job_of(each) for each in found]

    def set_state(self, job: str, state: JobState, reason: str | None = None) -> None:
        """Set a job's state. A job that becomes `running` again lists its archive again."""
        values: dict[str, Any] = {"state": state, "reason": reason, "ended": None}
        if state == "running":
            values["started"] = sql.func.coalesce(JOBS.c.started, self._now())
            values["complete"] = sql.and_(JOBS.c.complete, JOBS.c.state == state)
        else:
            values["ended"] = self._now()
        self._update(JOBS, JOBS.c.id == job, values)

    def add(self, job: str, locators: Iterable[str]) -> int:
        """Add images by their locators; returns how many are new."""
        rows = [{"job": job, "place": hash_of(each), "locator": encoded(each)} for each in locators]
        if not rows:
            return 0
        with self._transaction() as connection:
            statement = self._database.insert(ITEMS).on_conflict_do_nothing()
            # With RETURNING, SQLAlchemy sends many rows at once and compiles the statement once
            added = len(connection.execute(statement.returning(ITEMS.c.number), rows).all())
            count(connection, job, {"found": added})
        return added

    def claim_listing(self, job: str, worker: str, seconds: float) -> bool:
        """Become the worker that lists the archive, or renew that claim.

        Args:
            job: Its id.
            worker: The id of the worker that claims.
            seconds: Until the claim expires, and another worker may take it.

        Returns:
            False if the listing is complete, or another worker has the claim.
        """
        now = self._now()
        free = sql.or_(JOBS.c.lister.is_(None), JOBS.c.lister == worker, JOBS.c.lister_until < now)
        mine = sql.and_(JOBS.c.id == job, sql.not_(JOBS.c.complete), free)
        values = {"lister": worker, "lister_until": now + seconds}
        return bool(self._update(JOBS, mine, values))

    def release_listing(self, job: str, worker: str) -> None:
        """Give up the claim of `claim_listing`."""
        mine = sql.and_(JOBS.c.id == job, JOBS.c.lister == worker)
        self._update(JOBS, mine, {"lister": None})

    def complete(self, job: str, left_out: Mapping[str, int] | None = None) -> None:
        """Record that the listing is complete, and what it left out, by reason."""
        text = None if left_out is None else json.dumps(left_out, sort_keys=True)
        values = {"complete": True, "lister": None, "left_out": text}
        self._update(JOBS, JOBS.c.id == job, values)

    def lease(self, job: str, most: int, seconds: float) -> Lease | None:
        """Lease pending images, in the order in which they were found; None if there are none.

        Images whose worker died come last, in ever smaller leases. So an image that crashes every
        worker is isolated, and does not take others with it.

        Args:
            job: Its id.
            most: The most images of the lease.
            seconds: Until the lease expires, and other workers may take the images.
        """
        now, lease = self._now(), own_ids(job) + secrets.token_hex(12)
        values = {"state": "leased", "lease": lease, "lease_until": now + seconds}
        crashes = 0
        with self._transaction() as connection:
            after = self._leased.get(job, 0)
            found = sorted(connection.execute(lease_some(job, 0, after, most, values)).all())
            if not found:  # only then images of expired leases, and images with crashes
                lost = sql.and_(ITEMS.c.state == "leased", ITEMS.c.lease_until < now)
                statement = sql.update(ITEMS).where(ITEMS.c.job == job, lost)
                connection.execute(statement.values(**CRASHED))
                least: int | None = connection.scalar(least_crashes(job))
                if least is None:
                    return None
                crashes = least
                most = min(most, SUSPECTS.get(crashes, 1)) if crashes else most
                found = sorted(connection.execute(lease_some(job, crashes, 0, most, values)).all())
        if found and not crashes:
            self._leased[job] = found[-1].number
        items = tuple(Item(number, decoded(place), tries) for number, place, tries in found)
        return Lease(lease, job, items, crashes) if items else None

    def take_back(self, job: str) -> int:
        """Release all leases, if no other worker is alive; returns the number of images."""
        self._update(JOBS, JOBS.c.id == job, {"lister": None})
        leased = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "leased")
        return self._update(ITEMS, leased, CRASHED)

    def renew(self, lease: Lease, seconds: float) -> None:
        """Extend a lease to `seconds` from now."""
        self._update(ITEMS, held_by(lease), {"lease_until": self._now() + seconds})

    def release(self, lease: Lease) -> None:
        """Give back the images of a lease without an outcome; the attempt is not counted."""
        self._leased.pop(lease.job, None)
        with self._transaction() as connection:
            release(connection, lease)

    def known(self, job: str, keys: Collection[str]) -> set[str]:
        """The subset of the keys that belong to images that are done."""
        hashes = {hash_of(key): key for key in keys}
        found: set[str] = set()
        with self._reading() as connection:
            for some in slices(list(hashes)):
                statement = sql.select(ITEMS.c.key).where(ITEMS.c.job == job, ITEMS.c.key.in_(some))
                found |= {hashes[bytes(each)] for each in connection.scalars(statement)}
        return found

    def commit(self, lease: Lease, settled: Sequence[Settled], part: Part | None) -> None:
        """Commit outcomes and their part in one transaction; give back the lease's other images.

        Raises:
            LeaseLostError: The lease has expired and another worker has its images, or an image
                with the same key was done meanwhile.
        """
        with self._transaction() as connection:
            held = sql.select(sql.func.count()).select_from(ITEMS).where(held_by(lease))
            if connection.scalar(held) != len(lease.items):
                raise LeaseLostError("the lease ran out, and others have its images")
            try:
                settle(connection, settled)
            except IntegrityError as error:
                raise LeaseLostError("an image was done a second time meanwhile") from error
            if part is not None:
                connection.execute(sql.insert(PARTS).values(job=lease.job, **vars(part)))
            if len(settled) < len(lease.items):
                self._leased.pop(lease.job, None)
                release(connection, lease)
            counts = dict.fromkeys(("done", "skipped", "failed"), 0)
            for each in settled:
                counts[each.state] += 1
            count(connection, lease.job, counts)

    def end(self, job: str, failures: Sequence[Part]) -> list[Part] | None:
        """Set a job without open images to `done`, and replace its parts of failed images.

        Returns:
            The parts that they replace; None if another worker has ended the job already.
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
        """All parts of a job, by name."""
        statement = sql.select(*PART)
        with self._reading() as connection:
            found = connection.execute(statement.where(PARTS.c.job == job).order_by(PARTS.c.name))
            return [Part(*each) for each in found]

    def leases(self, job: str) -> set[str]:
        """The ids of leases that hold images, expired ones included."""
        leased = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "leased")
        with self._reading() as connection:
            return set(connection.scalars(sql.select(ITEMS.c.lease).distinct().where(leased)))

    def retry_failed(self, job: str) -> int:
        """Set failed images to pending; returns how many."""
        failed = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "failed")
        values = {"state": "pending", "code": None, "crashes": 0}
        with self._transaction() as connection:
            again = connection.execute(sql.update(ITEMS).where(failed).values(**values)).rowcount
            count(connection, job, {"failed": -again})
        return again

    def failures(self, job: str) -> Iterator[tuple[str, str, int]]:
        """Locator, code and attempts of all failed images, in the order they were found."""
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
        """Numbers of images skipped or failed, by code."""
        statement = (
            sql.select(ITEMS.c.code, sql.func.count())
            .where(ITEMS.c.job == job, ITEMS.c.state.in_(("skipped", "failed")))
            .group_by(ITEMS.c.code)
        )
        with self._reading() as connection:
            return {each.code: each[1] for each in connection.execute(statement)}

    def _update(self, table: sql.Table, which: Any, values: Mapping[str, Any]) -> int:
        with self._transaction() as connection:
            return connection.execute(sql.update(table).where(which).values(**values)).rowcount
