"""SQL statements that several transactions of the ledger share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Connection

from service.backfill.ledger.jobs import Job, Lease, Settled
from service.backfill.ledger.tables import ITEMS, JOBS, PARTS
from service.backfill.ledger.texts import hash_of

PART = (PARTS.c.name, PARTS.c.rows, PARTS.c.bytes, PARTS.c.sha256)
CRASHED = {"state": "pending", "lease": None, "crashes": ITEMS.c.crashes + 1}
LOOKED_UP = 500  # parameters of one query; SQLite has a limit of some thousands
# The columns that an outcome sets, with their types
GIVEN: dict[str, Any] = {
    "number": sql.BigInteger(),
    "state": sql.String(),
    "code": sql.String(),
    "key": sql.LargeBinary(),
}


def job_of(row: Any) -> Job:
    """A Job from its row."""
    counts = {name: getattr(row, name) for name in ("found", "done", "skipped", "failed")}
    description = json.loads(row.description)
    times = (row.created, row.started, row.ended)
    left_out = None if row.left_out is None else json.loads(row.left_out)
    state = (row.state, row.complete)
    return Job(row.id, row.key, description, *state, counts, *times, row.reason, left_out)


def held_by(lease: Lease) -> Any:
    """The condition that an image still belongs to the lease."""
    return sql.and_(
        ITEMS.c.number.in_([item.number for item in lease.items]), ITEMS.c.lease == lease.id
    )


def lease_some(job: str, crashes: int, after: int, most: int, values: Mapping[str, Any]) -> Any:
    """Lease the first pending images after a number; returns number, locator and attempts."""
    chosen = (
        sql.select(ITEMS.c.number)
        .where(ITEMS.c.job == job, ITEMS.c.state == "pending", ITEMS.c.crashes == crashes)
        .where(ITEMS.c.number > after)
        .order_by(ITEMS.c.number)
        .limit(most)
        .with_for_update(skip_locked=True)  # ignored by SQLite, which has one writer at a time
    )
    return (
        sql.update(ITEMS)
        .where(ITEMS.c.number.in_(chosen))
        .values(**values, attempts=ITEMS.c.attempts + 1)
        .returning(ITEMS.c.number, ITEMS.c.locator, ITEMS.c.attempts)
    )


def least_crashes(job: str) -> Any:
    """Select the smallest crash count of the pending images; no row if there are none."""
    free = sql.and_(ITEMS.c.job == job, ITEMS.c.state == "pending")
    return sql.select(ITEMS.c.crashes).where(free).order_by(ITEMS.c.crashes).limit(1)


def release(connection: Connection, lease: Lease) -> None:
    """Set a lease's images without an outcome to pending; the attempt is not counted."""
    untried = {"state": "pending", "lease": None, "attempts": ITEMS.c.attempts - 1}
    leased = sql.and_(held_by(lease), ITEMS.c.state == "leased")
    connection.execute(sql.update(ITEMS).where(leased).values(**untried))


def settle(connection: Connection, settled: Sequence[Settled]) -> None:
    """Write outcomes; on PostgreSQL in one statement, which takes a third of the time."""
    rows = [
        {"number": each.number, "state": each.state, "code": each.code}
        | {"key": each.key and hash_of(each.key)}
        for each in settled
    ]
    if connection.dialect.name == "postgresql":
        columns = {f"given_{name}": [row[name] for row in rows] for name in GIVEN}
        connection.execute(_all_at_once(), columns)
    elif rows:
        given = [{f"given_{name}": value for name, value in row.items()} for row in rows]
        connection.execute(_one_by_one(), given)


def _all_at_once() -> sql.Update:
    arrays = (sql.bindparam(f"given_{name}", type_=ARRAY(kind)) for name, kind in GIVEN.items())
    given = sql.func.unnest(*arrays).table_valued(*GIVEN).render_derived("given")
    return _settling({name: given.c[name] for name in GIVEN})


def _one_by_one() -> sql.Update:
    return _settling({name: sql.bindparam(f"given_{name}") for name in GIVEN})


def _settling(given: Mapping[str, Any]) -> sql.Update:
    values = {name: given[name] for name in ("state", "code", "key")}
    return sql.update(ITEMS).where(ITEMS.c.number == given["number"]).values(**values, lease=None)


def count(connection: Connection, job: str, changes: Mapping[str, int]) -> None:
    """Add to a job's counts."""
    values = {name: JOBS.c[name] + change for name, change in changes.items()}
    connection.execute(sql.update(JOBS).where(JOBS.c.id == job).values(**values))


def slices(values: list[bytes]) -> Iterator[list[bytes]]:
    """Slices of at most `LOOKED_UP` values."""
    for at in range(0, len(values), LOOKED_UP):
        yield values[at : at + LOOKED_UP]
