"""Refuse unknown query parameters, because a misspelt one would have no effect."""

from __future__ import annotations

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError


async def _check(request: Request) -> None:  # without await: others would take a thread
    """Check a request's query against the parameters that the API describes for its endpoint.

    Raises:
        RequestValidationError: A parameter is unknown; the message does not repeat its value.
    """
    if not request.query_params:
        return
    described = request.app.openapi()["paths"].get(request.scope["route"].path, {})
    operation = described.get(request.method.lower(), {})
    known = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    if unknown := request.query_params.keys() - set(known):
        has = f"this endpoint has {', '.join(known)}" if known else "this endpoint has none"
        raise RequestValidationError(
            [
                {"type": "unknown_parameter", "loc": ("query", name), "msg": f"unknown; {has}"}
                for name in sorted(unknown)
            ]
        )


# A dependency of routes, after their permission
check_parameters = Depends(_check)
