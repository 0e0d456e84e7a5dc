"""The Arrow schema of results, made from the fields of `Row`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from importlib.metadata import version
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa

from service.backfill.results.rows import Row

# Changes when a column is removed or changes its meaning, not when a column or a view is added
SCHEMA_VERSION = "1"
# Columns with few distinct values
REPETITIVE = (
    "outcome", "code", "modality", "station", "month", "format", "transfer_syntax", "input",
    "view", "view_position", "patient_orientation", "view_code", "described_view",
    "claimed_by", "body_part_examined", "warnings", "model", "model_sha256",
)  # fmt: skip
# Columns that parts of earlier versions lack
LATER = (
    "input", "described_view", "claimed_by", "described_view_agrees",
    "chest", "chest_threshold", "rotation_degrees", "rotation_probability",
    "inverted", "inverted_probability", "mirrored", "mirrored_probability",
    "body_part_examined", "body_part_agrees",
)  # fmt: skip
TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", "UTC"),
}
METADATA = {"cxrview_rows": SCHEMA_VERSION, "cxrview": version("cxrview")}


def _schema() -> pa.Schema:
    hints = get_type_hints(Row)
    return pa.schema([_field(each.name, hints[each.name]) for each in fields(Row)], METADATA)


def _field(name: str, hint: Any) -> pa.Field:
    nullable = NoneType in get_args(hint)
    plain = next(one for one in get_args(hint) if one is not NoneType) if nullable else hint
    kind = type(get_args(plain)[0]) if get_origin(plain) is Literal else plain
    return pa.field(name, TYPES[kind], nullable=nullable)


# The schema for readers; in Parquet, the columns of `REPETITIVE` are dictionaries
SCHEMA = _schema()
PARQUET_SCHEMA = pa.schema(
    [
        each.with_type(pa.dictionary(pa.int32(), each.type)) if each.name in REPETITIVE else each
        for each in SCHEMA
    ],
    METADATA,
)


def as_table(rows: Sequence[Row]) -> pa.Table:
    """A table of `SCHEMA`."""
    columns = []
    for each in SCHEMA:
        values = [getattr(row, each.name) for row in rows]
        if each.type == pa.string():
            values = [None if value is None else _storable(value) for value in values]
        columns.append(pa.array(values, each.type))
    return pa.table(columns, schema=SCHEMA)


def as_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch."""
    return (Row(**record) for record in batch.to_pylist())


def _storable(text: str) -> str:
    r"""A text as valid UTF-8: a byte of a file name that is not UTF-8 becomes `\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode()
