"""How the ledger's database is opened and used: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from service.backfill.ledger.emergency_space import STEP_BYTES, EmergencySpace
from service.backfill.ledger.jobs import LedgerAwayError, LedgerError
from service.backfill.ledger.migrations import migrate

READING = "cxrview_reading"
# So long does SQLite wait for another process, where the URL has no `timeout`
BUSY_SECONDS = 60


class Database:
    """Transactions, for those who write and for those who only read.

    Args:
        url: As SQLAlchemy takes it.

    Raises:
        LedgerError: It cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._opened = False
        try:
            where = sql.make_url(url)
            self._sqlite = where.get_backend_name() == "sqlite"
            if self._sqlite and "timeout" not in where.query:
                where = where.update_query_dict({"timeout": str(BUSY_SECONDS)})
            self.engine = sql.create_engine(where)
            self._file = where.database if self._sqlite else None
            self._reserve = EmergencySpace(Path(f"{self._file}.reserve")) if self._file else None
            if self._sqlite:
                sql.event.listen(self.engine, "connect", _prepare)
                sql.event.listen(self.engine, "begin", _begin)
            self._migrate()
        except (sql.exc.SQLAlchemyError, ImportError) as error:
            raise LedgerError(f"the ledger cannot be opened: {error}") from error
        self._opened = True
        if self._reserve is not None:
            self._reserve.keep()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of the block, or nothing.

        Raises:
            LedgerAwayError: The database is locked or full, or does not answer.
        """
        with self._in_words(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """What is committed, without waiting for those who write.

        Raises:
            LedgerAwayError
        """
        with (
            self._in_words(),
            self.engine.connect().execution_options(**{READING: True}) as connection,
        ):
            yield connection

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sql.exc.IntegrityError:  # what was asked for does not fit what is there
            raise
        except sql.exc.DBAPIError as error:
            name: str = getattr(error.orig, "sqlite_errorname", "")
            full = self._is_full(name)
            freed = full and self._reserve is not None and self._reserve.give_up()
            raise LedgerAwayError(self._why(name, error, full=full), retryable=freed) from error

    def _migrate(self) -> None:
        while True:
            try:
                with self._in_words():
                    return migrate(self.engine)
            except LedgerAwayError as error:
                if not error.retryable:
                    raise

    def _is_full(self, name: str) -> bool:
        """By SQLite's name of an error: it has another where files beside its own do not fit."""
        if not name.startswith("SQLITE_IOERR") or not self._file:
            return name == "SQLITE_FULL"
        free = os.statvfs(Path(self._file).parent)
        return free.f_bavail * free.f_frsize < STEP_BYTES

    def _why(self, name: str, error: sql.exc.DBAPIError, *, full: bool) -> str:
        if name.startswith("SQLITE_BUSY"):
            return f"the ledger is locked by another process: {self._file}"
        if full:
            return f"the disk is full: the ledger {self._file} cannot grow"
        return f"the ledger cannot be {'used' if self._opened else 'opened'}: {error.orig}"

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
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """SQLite: wait for others now, rather than fail when the first row is written."""
    reading = connection.get_execution_options().get(READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
