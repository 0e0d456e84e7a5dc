"""How the ledger's database is opened and used: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from service.backfill.jobs import LedgerError
from service.backfill.migrations import migrate

READING = "cxrview_reading"


class Database:
    """Transactions, for those who write and for those who only read.

    Args:
        url: As SQLAlchemy takes it.

    Raises:
        LedgerError: It cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = sql.create_engine(url)
            self._sqlite = self.engine.dialect.name == "sqlite"
            if self._sqlite:
                sql.event.listen(self.engine, "connect", _prepare)
                sql.event.listen(self.engine, "begin", _begin)
            migrate(self.engine)
        except (sql.exc.SQLAlchemyError, ImportError) as error:
            raise LedgerError(f"the ledger cannot be opened: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of the block, or nothing."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """What is committed, without waiting for those who write."""
        with self.engine.connect().execution_options(**{READING: True}) as connection:
            yield connection

    def insert(self, table: sql.Table) -> postgresql.Insert | sqlite.Insert:
        """An insertion that may leave out what is there."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)


def hash_of(text: str) -> bytes:
    """Half as long as most locators and keys, and as unlikely to be another's as can be."""
    return hashlib.blake2b(encoded(text), digest_size=16).digest()


def encoded(text: str) -> bytes:
    """Any text at all: in the names of files there may be bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    """What `encoded` was given."""
    return data.decode("utf-8", "surrogatepass")


def _prepare(connection: Any, _: Any) -> None:
    """SQLite: readers go on while one writes, and a commit has reached the disk."""
    connection.isolation_level = None  # transactions begin as we say, below
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 60000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """SQLite: wait for others now, rather than fail when the first row is written."""
    reading = connection.get_execution_options().get(READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
