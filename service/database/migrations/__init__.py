"""Migrations by Alembic; each step is a file in the `versions` of a schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from service.database.schema import Schema

HERE = Path(__file__).parent
LOCK = 0x637872  # an arbitrary number that no other application locks


def migrate(engine: Engine, schema: Schema, revision: str = "head") -> None:
    """Bring a database, which may be empty, to the newest version or to `revision`."""
    config = Config()
    for option, value in (
        ("script_location", str(HERE)),
        ("path_separator", "newline"),
        ("version_locations", str(schema.versions)),
    ):
        config.set_main_option(option, value.replace("%", "%%"))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # several workers may begin together
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes.update(connection=connection, version_table=schema.version_table)
        command.upgrade(config, revision)
