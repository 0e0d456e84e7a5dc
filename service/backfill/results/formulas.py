"""CSV that a spreadsheet may open: what came from a header or a file's name is never a formula.

A text that begins with one of `BEGIN_FORMULA`, or with the apostrophe itself, gets an apostrophe
before it. So whoever reads takes one away where there is one, and has the text as it was.
"""

from __future__ import annotations

BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
MARK = "'"


def marked(text: str) -> str:
    """One text, as it stands in a cell."""
    return MARK + text if text.startswith((*BEGIN_FORMULA, MARK)) else text
