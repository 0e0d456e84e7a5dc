"""Names that any text file, table or log line can hold, and that lead back to the same file."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

# Whatever breaks a line, hides, or is no character at all: file names are bytes, and bytes that
# are no UTF-8 come from `os` as lone surrogates. The percent sign, so that there is a way back
ESCAPED = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def locator_of(name: str) -> str:
    """The name, with what no line of text can hold percent-encoded. No two names share one."""
    return ESCAPED.sub(_encode, name)


def name_of(locator: str) -> str:
    """What `locator_of` was given."""
    return unquote_to_bytes(locator).decode("utf-8", "surrogateescape")


def _encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))
