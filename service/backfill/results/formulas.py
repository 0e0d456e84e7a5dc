"""Texts that are safe in a spreadsheet: no header value or file name becomes a formula.

A text that begins with one of `BEGIN_FORMULA`, or with an apostrophe, gets an apostrophe in front.
A reader removes one leading apostrophe, if there is one, to get the original text.
"""

from __future__ import annotations

BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
MARK = "'"


def marked(text: str) -> str:
    """The text for a cell."""
    return MARK + text if text.startswith((*BEGIN_FORMULA, MARK)) else text


def unmarked(text: str) -> str:
    """The text of a cell."""
    return text.removeprefix(MARK)
