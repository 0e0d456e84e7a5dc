"""What the last listing of the archive left out."""

import sqlalchemy as sql
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; it stays null for jobs that were listed before."""
    op.add_column("jobs", sql.Column("left_out", sql.Text))
