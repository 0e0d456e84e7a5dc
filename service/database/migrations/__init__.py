"""Migrations by Alembic; each step is a file in the `versions` of a schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.database.schema import Schema

HERE = Path(__file__).parent
LOCK = 0x637872  # an arbitrary number that no other application locks


class Version(NamedTuple):
    """Revisions of a schema."""

    current: str | None  # None: the database has no such schema
    known: Sequence[str]  # the newest first


def version(connection: Connection, schema: Schema) -> Version:
    """What a database has, and what there is. Only reads."""
    context = MigrationContext.configure(connection, opts={"version_table": schema.version_table})
    steps = ScriptDirectory.from_config(_config(schema)).walk_revisions()
    return Version(context.get_current_revision(), [step.revision for step in steps])


def migrate(engine: Engine, schema: Schema, revision: str = "head") -> None:
    """Bring a database, which may be empty, to the newest version or to `revision`."""
    config = _config(schema)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # several workers may begin together
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes.update(connection=connection, version_table=schema.version_table)
        command.upgrade(config, revision)


def _config(schema: Schema) -> Config:
    config = Config()
    for option, value in (
        ("script_location", str(HERE)),
        ("path_separator", "newline"),
        ("version_locations", str(schema.versions)),
    ):
        config.set_main_option(option, value.replace("%", "%%"))
    return config
