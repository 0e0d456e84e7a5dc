"""Migrations of the ledger's database, by Alembic; each step is a file in `versions`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

HERE = Path(__file__).parent
LOCK = 0x637872  # an arbitrary number that no other application locks


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring a database, which may be empty, to the newest version or to `revision`."""
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # several workers may begin together
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
