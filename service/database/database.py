"""A database of one schema: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from service.database.emergency_space import STEP_BYTES, EmergencySpace
from service.database.migrations import migrate, version
from service.database.schema import AwayError, Schema

READING = "cxrview_reading"
SQLITE = b"SQLite format 3\0"  # how each of its files begins


class Database:
    """Transactions for writers and for readers.

    Args:
        url: An SQLAlchemy URL.
        schema: Its tables, and the classes of its errors.
        create: Create what is missing; without, a database that lacks the schema is refused.

    Raises:
        Exception: `schema.refused`: the database cannot be opened; `schema.away`: from every
            transaction.
    """

    def __init__(self, url: str, schema: Schema, *, create: bool = True) -> None:
        self._schema, self._opened = schema, False
        try:
            where = sql.make_url(url)
            if where.drivername in {"postgresql", "postgres"}:  # others than the one we ship
                where = where.set(drivername="postgresql+pg8000")
            self._sqlite = where.get_backend_name() == "sqlite"
            if not self._sqlite and where.get_backend_name() != "postgresql":
                raise schema.refused(
                    f"the {schema.name} cannot be opened: it needs sqlite:///FILE or postgresql://"
                )
            if self._sqlite and "timeout" not in where.query:
                where = where.update_query_dict({"timeout": str(schema.busy_seconds)})
            self._file = where.database if self._sqlite else None
            if self._sqlite and self._file in {None, "", ":memory:"}:
                raise schema.refused(f"the {schema.name} needs a file: sqlite:///FILE")
            self.engine = sql.create_engine(where)
            self._reserve = self._reserve_of(schema)
            if self._sqlite:
                sql.event.listen(self.engine, "connect", self._prepare)
                sql.event.listen(self.engine, "begin", _begin)
            if self._file and schema.private and create:
                _make_private(self._file)
            self._open(create=create)
        except (sql.exc.SQLAlchemyError, ImportError, OSError) as error:
            raise schema.refused(f"the {schema.name} cannot be opened: {error}") from error
        self._opened = True
        if self._reserve is not None:
            self._reserve.keep()

    @contextmanager
    def transaction(self, *, is_new: bool = False) -> Iterator[Connection]:
        """A write transaction: commits the whole block, or nothing after an error.

        Args:
            is_new: It stores what can be refused. The reserved space is not for it: on a full disk
                it fails before it begins.

        Raises:
            AwayError: `schema.away`: the database is locked or full, or does not answer.
        """
        if is_new and self._reserve is not None and not self._reserve.is_whole():
            raise self._schema.away(self._full())
        with self._in_words(is_new=is_new), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read of committed rows, which does not wait for writers.

        Raises:
            AwayError: `schema.away`: the database is locked or full, or does not answer.
        """
        with (
            self._in_words(),
            self.engine.connect().execution_options(**{READING: True}) as connection,
        ):
            yield connection

    @contextmanager
    def _in_words(self, *, is_new: bool = False) -> Iterator[None]:
        try:
            yield
        except sql.exc.IntegrityError:  # the caller handles conflicts with existing rows
            raise
        except sql.exc.DBAPIError as error:
            name: str = getattr(error.orig, "sqlite_errorname", "")
            full = self._is_full(name)
            freed = full and not is_new and self._reserve is not None and self._reserve.give_up()
            why = self._why(name, error, full=full)
            raise self._schema.away(why, retryable=freed) from error
        except sql.exc.TimeoutError as error:  # of the pool of connections
            raise self._schema.away(f"the {self._schema.name} is too busy") from error

    def _open(self, *, create: bool) -> None:
        while True:
            try:
                return self._bring_up_to_date(create=create)
            except AwayError as error:
                if not error.retryable:
                    raise

    def _bring_up_to_date(self, *, create: bool) -> None:
        with self.reading() as connection:  # a command that only reads waits for no writer
            found = version(connection, self._schema)
        if found.current is None and not create:
            raise self._schema.refused(f"the database holds no {self._schema.name}")
        if found.current not in {None, *found.known}:
            raise self._schema.refused(f"a newer cxrview has made this {self._schema.name}")
        if found.current != found.known[0]:
            with self._in_words():
                migrate(self.engine, self._schema)

    def _reserve_of(self, schema: Schema) -> EmergencySpace | None:
        if not self._file:
            return None
        return EmergencySpace(Path(f"{self._file}.reserve"), schema.step_bytes)

    def _is_full(self, name: str) -> bool:
        """Whether SQLite's error means a full disk; for its WAL files it reports an I/O error."""
        if not name.startswith("SQLITE_IOERR") or not self._file:
            return name == "SQLITE_FULL"
        free = os.statvfs(Path(self._file).parent)
        return free.f_bavail * free.f_frsize < STEP_BYTES

    def _why(self, name: str, error: sql.exc.DBAPIError, *, full: bool) -> str:
        what = f"the {self._schema.name}"
        if name.startswith("SQLITE_BUSY"):
            return f"{what} is locked by another process: {self._file}"
        if full:
            return self._full()
        return f"{what} cannot be {'used' if self._opened else 'opened'}: {error.orig}"

    def _full(self) -> str:
        return f"the disk is full: the {self._schema.name} {self._file} cannot grow"

    def _prepare(self, connection: Any, _: Any) -> None:
        """Set up SQLite: readers do not wait for a writer, and a commit is on the disk."""
        connection.isolation_level = None  # `_begin` starts transactions
        pragmas = ["journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"]
        pragmas.append(f"wal_autocheckpoint = {self._schema.log_pages}")
        if self._schema.private:
            pragmas.append("secure_delete = ON")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def insert(self, table: sql.Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that supports ON CONFLICT DO NOTHING."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)


def _make_private(file: str) -> None:
    """Create the file, or change its mode; SQLite gives its other files the same mode.

    A file that is no database, named by mistake, keeps its mode; opening it as one fails later.
    """
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.read(opened, len(SQLITE)) in {b"", SQLITE}:
            os.fchmod(opened, 0o600)
    finally:
        os.close(opened)


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at the start, so that no transaction fails at its first write."""
    reading = connection.get_execution_options().get(READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
