"""Ledgers on both databases, real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import Clock
from databases import Postgres, postgres

from service.backfill.ledger.ledger import Ledger

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def clock() -> Clock:
    return Clock(1e9)


@pytest.fixture(scope="session")
def psql() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    server: Postgres = request.getfixturevalue("psql")
    return server.database()


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
