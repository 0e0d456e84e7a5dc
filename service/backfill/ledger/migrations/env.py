"""Alembic's entry point: runs the migrations in the connection from `migrate`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
