"""Decisions of persons about images."""

import sqlalchemy as sql
from alembic import op

revision = "0005"
down_revision = "0004"

NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "decisions",
        sql.Column("number", NUMBER, primary_key=True),
        sql.Column("job", sql.String(32), sql.ForeignKey("jobs.id"), nullable=False),
        sql.Column("item", NUMBER, sql.ForeignKey("items.number"), nullable=False),
        sql.Column("reader", sql.Text, nullable=False),
        sql.Column("role", sql.String(16), nullable=False),
        sql.Column("decision", sql.String(16)),
        sql.Column("decided", sql.Double, nullable=False),
    )
    op.create_index("decisions_item", "decisions", ["job", "item"])
