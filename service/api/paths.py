"""Where everything is. What is not listed here has no name in logs, metrics or traces."""

from __future__ import annotations

CLASSIFY = "/v1/classify"
BATCH = "/v1/classify/batch"
MODEL = "/v1/model"
CLIENTS = "/v1/clients"
OPERATIONS = frozenset({"/livez", "/readyz", "/metrics"})
NAMED = OPERATIONS | {CLASSIFY, BATCH, MODEL, CLIENTS, "/docs", "/openapi.json"}
ELSEWHERE = "elsewhere"


def name_of(path: str) -> str:
    """The path, if it is one of ours: others could hold anything, a patient's name too."""
    return path if path in NAMED else ELSEWHERE
