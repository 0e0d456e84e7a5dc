"""Which worker lists the archive, when several work on it."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; null means that no worker lists."""
    op.add_column("jobs", sql.Column("lister", sql.String(32)))
    op.add_column("jobs", sql.Column("lister_until", sql.Double))
