"""The tables of the ledger, as the newest migration leaves them."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sql

from service.backfill.ledger.jobs import LedgerAwayError, LedgerError
from service.database.schema import Schema

SCHEMA = Schema(
    name="ledger",
    versions=Path(__file__).parent / "versions",
    version_table="alembic_version",
    refused=LedgerError,
    away=LedgerAwayError,
)
METADATA = sql.MetaData()
NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")  # SQLite increments only INTEGER keys

JOBS = sql.Table(
    "jobs",
    METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("key", sql.Text, nullable=False, unique=True),
    sql.Column("description", sql.Text, nullable=False),  # JSON
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text),
    sql.Column("complete", sql.Boolean, nullable=False, default=False, server_default=sql.false()),
    # The one worker that lists the archive, so that it is listed once
    sql.Column("lister", sql.String(32)),
    sql.Column("lister_until", sql.Double),
    # Updated with every change, because counting ten million rows takes seconds
    *(
        sql.Column(name, sql.BigInteger, nullable=False, default=0, server_default="0")
        for name in ("found", "done", "skipped", "failed")
    ),
    sql.Column("created", sql.Double, nullable=False),
    sql.Column("started", sql.Double),
    sql.Column("ended", sql.Double),
    sql.Column("left_out", sql.Text),  # JSON; null until the listing is complete
)
ITEMS = sql.Table(
    "items",
    METADATA,
    sql.Column("number", NUMBER, primary_key=True),
    sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), nullable=False),
    sql.Column("place", sql.LargeBinary(16), nullable=False),  # hash of the locator
    sql.Column("locator", sql.LargeBinary, nullable=False),  # file names may not be UTF-8
    sql.Column("state", sql.String(8), nullable=False, server_default="pending"),
    sql.Column("attempts", sql.Integer, nullable=False, server_default="0"),
    # How often a worker died while it had this image: perhaps because of it
    sql.Column("crashes", sql.Integer, nullable=False, server_default="0"),
    sql.Column("code", sql.String(64)),
    sql.Column("key", sql.LargeBinary(16)),  # hash of the image's key, if it is done
    sql.Column("lease", sql.String(32)),
    sql.Column("lease_until", sql.Double),
    sql.UniqueConstraint("job", "place", name="items_place"),
    sql.UniqueConstraint("job", "key", name="items_key"),  # nulls are distinct
    # Partial on PostgreSQL only: SQLite does not use a partial index for a bound state
    sql.Index(
        "items_state",
        *("job", "state", "crashes", "number"),
        postgresql_where=sql.text("state <> 'done'"),
    ),
)
PARTS = sql.Table(
    "parts",
    METADATA,
    sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), primary_key=True),
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("rows", sql.BigInteger, nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("sha256", sql.String(64), nullable=False),
    sql.Column("failures", sql.Boolean, nullable=False, default=False, server_default=sql.false()),
)
DECISIONS = sql.Table(
    "decisions",
    METADATA,
    sql.Column("number", NUMBER, primary_key=True),  # in the order of the decisions
    sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), nullable=False),
    sql.Column("item", NUMBER, sql.ForeignKey("items.number"), nullable=False),
    sql.Column("reader", sql.Text, nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("decision", sql.String(16)),  # null: the reader takes the one before back
    sql.Column("decided", sql.Double, nullable=False),
    sql.Index("decisions_item", "job", "item"),
)
