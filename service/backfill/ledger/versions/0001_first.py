"""Jobs, items and parts."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables. Written out in full, because `tables` has the newest columns."""
    op.create_table(
        "jobs",
        sql.Column("id", sql.String(32), primary_key=True),
        sql.Column("key", sql.Text, nullable=False, unique=True),
        sql.Column("description", sql.Text, nullable=False),
        sql.Column("state", sql.String(16), nullable=False),
        sql.Column("reason", sql.Text),
        sql.Column("complete", sql.Boolean, nullable=False, server_default=sql.false()),
        *(
            sql.Column(name, sql.BigInteger, nullable=False, server_default="0")
            for name in ("found", "done", "skipped", "failed")
        ),
        sql.Column("created", sql.Double, nullable=False),
        sql.Column("started", sql.Double),
        sql.Column("ended", sql.Double),
    )
    op.create_table(
        "items",
        sql.Column("number", NUMBER, primary_key=True),
        sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), nullable=False),
        sql.Column("place", sql.LargeBinary(16), nullable=False),
        sql.Column("locator", sql.LargeBinary, nullable=False),
        sql.Column("state", sql.String(8), nullable=False, server_default="pending"),
        sql.Column("attempts", sql.Integer, nullable=False, server_default="0"),
        sql.Column("crashes", sql.Integer, nullable=False, server_default="0"),
        sql.Column("code", sql.String(64)),
        sql.Column("key", sql.LargeBinary(16)),
        sql.Column("lease", sql.String(32)),
        sql.Column("lease_until", sql.Double),
        sql.Column("part", sql.Text),
        sql.UniqueConstraint("job", "place", name="items_place"),
        sql.UniqueConstraint("job", "key", name="items_key"),
    )
    op.create_index("items_state", "items", ["job", "state", "crashes", "number"])
    op.create_table(
        "parts",
        sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("name", sql.Text, primary_key=True),
        sql.Column("rows", sql.BigInteger, nullable=False),
        sql.Column("bytes", sql.BigInteger, nullable=False),
        sql.Column("sha256", sql.String(64), nullable=False),
        sql.Column("failures", sql.Boolean, nullable=False, server_default=sql.false()),
    )
