"""Values of the file of destinations, and what is wrong with others."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
SECRET_HEADERS = re.compile(r"authorization|cookie|.*(key|token|secret|password).*", re.IGNORECASE)


class Hours(NamedTuple):
    """A time of day, in local time; it may include midnight."""

    start: time
    end: time

    def contains(self, at: time) -> bool:
        """Whether a time of day lies in it; the end does not."""
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def _file(path: Path, info: ValidationInfo) -> Path:
    found: Path = (info.context or {}).get("folder", Path()) / path
    try:
        with found.open("rb"):
            return found
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error


def _folder(path: Path, info: ValidationInfo) -> Path:
    found: Path = (info.context or {}).get("folder", Path()) / path
    if not found.is_dir():
        raise ValueError("there is no such folder")
    return found


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    assert parts.port != 0  # raises ValueError if it is no port
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password: see user, password_file, token_file")
    if parts.query or parts.fragment:
        raise ValueError("must have no ? and no #")
    return text.rstrip("/")


def _window(text: str) -> str:
    if WINDOW.fullmatch(text) is None:
        raise ValueError('must be a window of local time, as "20:00-06:00"')
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not value.isprintable():
            raise ValueError("names must be tokens, and values printable")
        if SECRET_HEADERS.fullmatch(name):
            raise ValueError(f"{name} may hold a secret: name its file in header_files")
    return headers


ReadableFile = Annotated[Path, AfterValidator(_file)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]
Url = Annotated[str, AfterValidator(_url)]
Window = Annotated[str, AfterValidator(_window)]
PlainHeaders = Annotated[dict[str, str], AfterValidator(_headers)]
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
