"""Databases of the service's own: SQLite in a file, or PostgreSQL, with migrations."""
