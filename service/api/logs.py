"""Where log lines go, and what they look like."""

from __future__ import annotations

import logging
from typing import Any, Literal

from pythonjsonlogger.core import RESERVED_ATTRS

LogFormat = Literal["text", "json"]


def configuration(form: LogFormat) -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything goes to standard error.

    Of libraries nothing below an error is shown: what they quote may be a patient's.
    """
    formatters = {
        "text": {"format": "%(asctime)s %(levelname)s %(message)s"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(levelname)s %(name)s %(message)s",
            "rename_fields": {"levelname": "level", "name": "logger"},
            "timestamp": "time",
            "reserved_attrs": [*RESERVED_ATTRS, "color_message"],  # the last for terminals
        },
    }
    ours = {"level": "INFO"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatters[form]},
        "filters": {"no_warnings": {"()": lambda: _below_warnings_or_above}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "ERROR", "handlers": ["stderr"]},
        "loggers": {
            **dict.fromkeys(("uvicorn", "service", "cxrview"), ours),
            # Its warnings are of single requests, which any client could send without end
            "uvicorn.error": {"filters": ["no_warnings"]},
            "uvicorn.access": {"propagate": False},  # its lines hold paths and queries
            "pydicom": {"level": 60},
        },
    }


def _below_warnings_or_above(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING
