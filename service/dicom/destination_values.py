"""Values of the file of destinations, and what is wrong with others."""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# They describe the body, which the service writes, or the connection
OF_MESSAGES = {
    *("connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
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
    start, _, end = text.partition("-")
    if start == end:
        raise ValueError("the window is empty; without it, results are delivered at any time")
    return text


def _header_name(name: str) -> str:
    if not HEADER_NAME.fullmatch(name):
        raise ValueError("names must be tokens")
    if name.lower() in OF_MESSAGES:
        raise ValueError(f"{name} is the service's to say")
    return name


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not value.isprintable():
            raise ValueError("values must be printable")
        if SECRET_HEADERS.fullmatch(name):
            raise ValueError(f"{name} may hold a secret: name its file in header_files")
    return headers


ReadableFile = Annotated[Path, AfterValidator(_file)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]
Url = Annotated[str, AfterValidator(_url)]
Window = Annotated[str, AfterValidator(_window)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
PlainHeaders = Annotated[dict[HeaderName, str], AfterValidator(_headers)]
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
