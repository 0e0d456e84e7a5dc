"""The configuration of logging."""

from __future__ import annotations

import logging
from typing import Any, Literal

from pythonjsonlogger.core import RESERVED_ATTRS

LogFormat = Literal["text", "json"]


def configuration(form: LogFormat) -> dict[str, Any]:
    """The argument of `logging.config.dictConfig`: all lines go to standard error.

    Libraries log errors only, because their messages may quote data of a patient.
    """
    formatters = {
        "text": {"format": "%(asctime)s %(levelname)s %(message)s"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(levelname)s %(name)s %(message)s",
            "rename_fields": {"levelname": "level", "name": "logger"},
            "timestamp": "time",
            "reserved_attrs": [*RESERVED_ATTRS, "color_message"],  # uvicorn's field for terminals
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
            # Its warnings are about single requests, so that any client could flood the log
            "uvicorn.error": {"filters": ["no_warnings"]},
            "uvicorn.access": {"propagate": False},  # its lines hold paths and queries
            "pydicom": {"level": 60},
        },
    }


def _below_warnings_or_above(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING
