"""The folders and addresses from which jobs of the service may read.

A path is compared after all links are followed, and the job reads that resolved path. An address is
compared by scheme, host, port and whole path segments; an address with two possible readings is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from service.backfill.sources.options import OptionsError

PORTS = {"http": 80, "https": 443}
# A web address has a small set of characters; a bucket's prefix may have most others. Neither has
# blanks or control characters, which some parsers drop. Percent signs are refused in web addresses,
# because they can hide dots and slashes
WEB = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~!$&'()*+,;=:-]+)*/?", re.IGNORECASE)
BUCKET = re.compile(r"s3://[a-z0-9.-]+(/[^\x00-\x20\x7f-\x9f\\?#]*)?", re.IGNORECASE)


class SourceNotAllowedError(Exception):
    """Jobs may not read from there."""

    code: ClassVar[str] = "source_not_allowed"


class SourceRoot(NamedTuple):
    """The parts of an address."""

    scheme: str
    host: str
    port: int | None
    path: tuple[str, ...]

    def holds(self, other: SourceRoot) -> bool:
        """Whether the other is this one, or below it."""
        return self[:3] == other[:3] and other.path[: len(self.path)] == self.path


class AllowedSources:
    """Folders and addresses below which jobs may read.

    Args:
        roots: Absolute paths of folders; `s3://bucket/prefix`; `https://host/path`.

    Raises:
        ValueError: A root has none of these forms.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._folders = [Path(root) for root in roots if "://" not in root]
        self._places = [source_root(root) for root in roots if "://" in root]
        for folder in self._folders:
            if not folder.is_absolute():
                raise ValueError(f"{folder}: an absolute path is expected")

    def check(self, source: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The source and options to open, with resolved paths.

        Raises:
            SourceNotAllowedError: The source is not below an allowed root.
            OptionsError: It is allowed, but there is no such folder or file.
        """
        checked = dict(options)
        if "://" in source:
            return self._address(source), checked
        path = self._real(source)
        if "root" in checked:  # the folder of a list's files
            checked["root"] = str(self._real(str(checked["root"])))
        if not path.is_dir():
            if not path.is_file():  # to open a pipe would wait for ever
                raise OptionsError("there is no such folder or file")
            self._real(str(path.parent))  # the folder of a list's files, if it names no root
        return str(path), checked

    def _real(self, text: str) -> Path:
        path = Path(text)
        if not path.is_absolute() or "\0" in text:
            raise SourceNotAllowedError("an absolute path below an allowed folder is expected")
        try:
            real = path.resolve()
            roots = [folder.resolve() for folder in self._folders]
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise SourceNotAllowedError("the path cannot be followed") from error
        if not any(real.is_relative_to(root) for root in roots):
            raise SourceNotAllowedError("the path is not below an allowed folder")
        return real

    def _address(self, source: str) -> str:
        try:
            place = source_root(source)
        except ValueError as error:
            raise SourceNotAllowedError("the address could be read in several ways") from error
        holding = [root for root in self._places if root.holds(place)]
        if not holding:
            raise SourceNotAllowedError("the address is not below an allowed one")
        if place.scheme == "s3" and place.path and place in holding and not source.endswith("/"):
            return f"{source}/"  # otherwise `a` would also match the keys of `ab`
        return source


def source_root(text: str) -> SourceRoot:
    """Split an address.

    Raises:
        ValueError: It is not an address, or has several possible readings: it has a user, a query,
            dots or empty segments in its path, or characters that need quoting.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    form = BUCKET if scheme == "s3" else WEB
    if not form.fullmatch(text):
        raise ValueError(f"not an address that jobs may read from: {text}")
    host, _, path = rest.partition("/")
    segments = tuple(path.removesuffix("/").split("/")) if path else ()
    if {"", ".", ".."}.intersection(segments):
        raise ValueError(f"an address with empty segments or dots: {text}")
    if scheme == "s3":
        return SourceRoot(scheme, host, None, segments)
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError(f"an address without a host: {text}")
    port = parts.port if parts.port is not None else PORTS[scheme]
    return SourceRoot(scheme, parts.hostname.lower(), port, segments)
