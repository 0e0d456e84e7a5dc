"""Settings from the environment, with errors that name the variables."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping

from pydantic import ValidationError

from service.api.settings import PREFIX, Settings

# Beside settings: what a backfill's DICOMweb source signs in with, and what tests are told
OTHERS = re.compile(r"CXRVIEW_(DICOMWEB_\w+|TOOLS|SHARED|WHOLE|KILLS|IMAGES)")
# Kubernetes sets these in every pod for each Service, as CXRVIEW_PORT_8000_TCP_ADDR
OF_SERVICES = re.compile(r"CXRVIEW_(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")


class SettingsError(Exception):
    """A variable is unknown, or its value cannot be meant."""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process.

    Args:
        environment: Looked through for unknown variables.

    Raises:
        SettingsError: A line for each variable that is unknown or wrong, by its name.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in environment
        if name.startswith(PREFIX)
        and name not in known
        and not OTHERS.fullmatch(name)
        and not OF_SERVICES.fullmatch(name)
    ]
    if unknown:
        raise SettingsError("\n".join(_unknown(name, known) for name in sorted(unknown)))
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explained(error)) from None


def _unknown(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1)
    return f"{name} is no setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _explained(error: ValidationError) -> str:
    """By the variables that are set, and not by the fields that they fill."""
    lines = []
    for each in error.errors(include_url=False):
        message = each["msg"].removeprefix("Value error, ")
        for field in sorted(Settings.model_fields, key=len, reverse=True):
            message = re.sub(rf"(?<![\w.]){field}(?!\w)", PREFIX + field.upper(), message)
        name = "".join(f"{PREFIX}{part}".upper() for part in each["loc"][:1])
        lines.append(f"{name}: {message}" if name else message)
    return "\n".join(lines)
