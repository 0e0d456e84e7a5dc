"""Answers and deliveries."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables. Written out in full, because `tables` has the newest columns."""
    op.create_table(
        "answers",
        sql.Column("sop_instance_uid", sql.String(64), primary_key=True),
        sql.Column("model", sql.Text, primary_key=True),
        sql.Column("answer", sql.Text),
        sql.Column("created", sql.Double, nullable=False),
    )
    op.create_table(
        "deliveries",
        sql.Column("id", NUMBER, primary_key=True),
        sql.Column("destination", sql.String(64), nullable=False),
        sql.Column("sop_instance_uid", sql.String(64), nullable=False),
        sql.Column("model", sql.Text, nullable=False),
        sql.Column("payload", sql.LargeBinary),
        sql.Column("state", sql.String(9), nullable=False),
        sql.Column("due", sql.Double),
        sql.Column("lease", sql.String(32)),
        sql.Column("attempts", sql.Integer, nullable=False),
        sql.Column("failing_since", sql.Double),
        sql.Column("code", sql.String(32)),
        sql.Column("detail", sql.Text),
        sql.Column("created", sql.Double, nullable=False),
        sql.Column("ended", sql.Double),
        sql.UniqueConstraint("destination", "sop_instance_uid", "model", name="deliveries_once"),
    )
    op.create_index("deliveries_due", "deliveries", ["destination", "due"])
    op.create_index("deliveries_state", "deliveries", ["destination", "state", "id"])
    op.create_index("deliveries_ended", "deliveries", ["destination", "ended"])
    op.create_index("answers_created", "answers", ["created"])
