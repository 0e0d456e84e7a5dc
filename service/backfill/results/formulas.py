"""CSV that a spreadsheet may open: what came from a header or a file's name is never a formula.

A text that begins with one of `BEGIN_FORMULA`, or with the apostrophe itself, gets an apostrophe
before it. So whoever reads takes one away where there is one, and has the text as it was.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

BEGIN_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
MARK = "'"
_MARKED = r"^(['=+\-@\t\r\n])"


def marked(text: str) -> str:
    """One text, as it stands in a cell."""
    return MARK + text if text.startswith((*BEGIN_FORMULA, MARK)) else text


def mark(table: pa.Table) -> pa.Table:
    """All columns of text, as they stand in cells."""
    return _replace(table, _MARKED, r"'\1")


def unmark(table: pa.Table) -> pa.Table:
    """What `mark` was given."""
    return _replace(table, "^'", "")


def _replace(table: pa.Table, pattern: str, by: str) -> pa.Table:
    columns = [
        pc.replace_substring_regex(column, pattern, by) if column.type == pa.string() else column
        for column in table.columns
    ]
    return pa.table(columns, schema=table.schema)
