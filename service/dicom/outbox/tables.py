"""The tables of the outbox, as the newest migration leaves them."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sql

from service.database.emergency_space import EMERGENCY_BYTES
from service.database.schema import Schema
from service.dicom.entries import OutboxAwayError, OutboxError

SCHEMA = Schema(
    name="outbox",
    versions=Path(__file__).parent / "versions",
    version_table="outbox_version",
    refused=OutboxError,
    away=OutboxAwayError,
    busy_seconds=10,  # a sender waits for its answer, and must be told to try again in time
    # Deliveries free space themselves, once the log has been written back: that fits the reserve
    log_pages=200,
    step_bytes=EMERGENCY_BYTES,
    private=True,
)
METADATA = sql.MetaData()
NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")  # SQLite increments only INTEGER keys

ANSWERS = sql.Table(
    "answers",
    METADATA,
    sql.Column("sop_instance_uid", sql.String(64), primary_key=True),
    sql.Column("model", sql.Text, primary_key=True),  # name/version
    sql.Column("answer", sql.Text),  # JSON of a Classification; null: refused
    sql.Column("created", sql.Double, nullable=False),
    sql.Index("answers_created", "created"),
)
DELIVERIES = sql.Table(
    "deliveries",
    METADATA,
    sql.Column("id", NUMBER, primary_key=True),
    sql.Column("destination", sql.String(64), nullable=False),
    sql.Column("sop_instance_uid", sql.String(64), nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("payload", sql.LargeBinary),  # PHI; null as soon as it is of no use
    sql.Column("state", sql.String(9), nullable=False),
    # When it may be leased: a lease that expires is one that is due. Null: never
    sql.Column("due", sql.Double),
    sql.Column("lease", sql.String(32)),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("failing_since", sql.Double),  # the first failure; null: none yet
    sql.Column("code", sql.String(32)),  # of the last failure, or of a warning
    sql.Column("detail", sql.Text),
    sql.Column("created", sql.Double, nullable=False),
    sql.Column("ended", sql.Double),
    sql.UniqueConstraint("destination", "sop_instance_uid", "model", name="deliveries_once"),
    sql.Index("deliveries_due", "destination", "due"),
    sql.Index("deliveries_state", "destination", "state", "id"),
    sql.Index("deliveries_ended", "destination", "ended"),
)
