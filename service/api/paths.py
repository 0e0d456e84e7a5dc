"""Where everything is. What is not listed here has no name in logs, metrics or traces."""

from __future__ import annotations

from starlette.types import Scope

CLASSIFY = "/v1/classify"
BATCH = "/v1/classify/batch"
MODEL = "/v1/model"
CLIENTS = "/v1/clients"
BACKFILLS = "/v1/backfills"
OPERATIONS = frozenset({"/livez", "/readyz", "/metrics"})
NAMED = OPERATIONS | {CLASSIFY, BATCH, MODEL, CLIENTS, BACKFILLS, "/docs", "/openapi.json"}
ELSEWHERE = "elsewhere"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def name_of(path: str) -> str:
    """The path, if it is one of ours: others could hold anything, a patient's name too."""
    if is_backfill(path):
        return BACKFILLS  # without the job's identifier, or what stands in its place
    return path if path in NAMED else ELSEWHERE


def method_of(scope: Scope) -> str:
    """The method, if it is one that HTTP defines."""
    return scope["method"] if scope["method"] in METHODS else "OTHER"


def is_backfill(path: str) -> bool:
    """Whether it is that of jobs, or of one of them."""
    return path == BACKFILLS or path.startswith(f"{BACKFILLS}/")
