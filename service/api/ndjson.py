"""Answers as NDJSON: one JSON object a line."""

from __future__ import annotations

import json

from service.api.problems import problem_of
from service.inference import Classification


def line_of(name: str, outcome: Classification | Exception) -> str:
    """One NDJSON line, with its newline: the file's name and its answer, or its `error`."""
    if isinstance(outcome, Exception):
        return json.dumps({"name": name, "error": problem_of(outcome).model_dump()}) + "\n"
    return json.dumps({"name": name} | outcome.model_dump()) + "\n"
