"""ASGI middleware: one file, one thing."""
