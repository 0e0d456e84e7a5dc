"""Outboxes on both databases, real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import Clock
from databases import Postgres, postgres

from service.dicom.outbox import Outbox

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
        return f"sqlite:///{tmp_path}/outbox.sqlite"
    server: Postgres = request.getfixturevalue("psql")
    return server.database()


@pytest.fixture
def opened(url: str, clock: Clock) -> Iterator[Callable[[], Outbox]]:
    """Opens the outbox, as each process does."""
    outboxes: list[Outbox] = []

    def another() -> Outbox:
        outboxes.append(Outbox(url, clock))
        return outboxes[-1]

    yield another
    for outbox in outboxes:
        outbox.close()


@pytest.fixture
def outbox(opened: Callable[[], Outbox]) -> Outbox:
    return opened()
