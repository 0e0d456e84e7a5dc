"""ASGI middleware, one for each file."""
