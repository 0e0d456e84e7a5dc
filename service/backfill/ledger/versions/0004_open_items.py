"""Drop what no query reads about images that are done; a third less disk space on PostgreSQL."""

import sqlalchemy as sql
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Drop the part's name, which is in its rows, and index only images that are not done."""
    op.drop_column("items", "part")
    if op.get_context().dialect.name != "postgresql":
        return
    op.drop_index("items_state", "items")
    columns = ["job", "state", "crashes", "number"]
    op.create_index("items_state", "items", columns, postgresql_where=sql.text("state <> 'done'"))
