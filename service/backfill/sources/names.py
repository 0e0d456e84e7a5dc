"""Reversible names of files for text files, tables and log lines."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

# Line breaks, control characters and lone surrogates, which `os` returns for bytes of file names
# that are not UTF-8. The percent sign too, so that the encoding can be reversed
ESCAPED = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def locator_of(name: str) -> str:
    """The name with the characters of `ESCAPED` percent-encoded; different for every name."""
    return ESCAPED.sub(_encode, name)


def name_of(locator: str) -> str:
    """The inverse of `locator_of`."""
    return unquote_to_bytes(locator).decode("utf-8", "surrogateescape")


def _encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))
