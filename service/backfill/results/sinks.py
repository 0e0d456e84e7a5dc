"""Where rows are written: parts of Parquet, NDJSON or CSV, each there whole or not at all.

A part is written under a hidden name first. The ledger commits, and only then the part gets its
name (`atomic_files.publish`). So readers see what was committed; what a crash left behind is
published or deleted when the job resumes.
"""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from service.backfill.results import atomic_files
from service.backfill.results.columns import (
    LATER,
    PARQUET_SCHEMA,
    REPETITIVE,
    SCHEMA,
    SCHEMA_VERSION,
    as_table,
)
from service.backfill.results.rows import Row

RESULTS = "results"
BATCH_ROWS = 65536


MARKED = r"^(['=+\-@\t\r\n])"  # see `formulas`


class PartError(Exception):
    """A part cannot be read, or is not of this version's rows."""


@dataclass(frozen=True)
class PartFile:
    """A file of results."""

    name: str  # from the folder of results on: day=YYYY-MM-DD/part-<id>.parquet
    rows: int
    bytes: int
    sha256: str


class Sink(ABC):
    """One format of parts."""

    suffix: ClassVar[str]

    def path(self, out: Path, day: date, part: str) -> Path:
        """Where the part of this id, of images processed on this day, is published."""
        return out / RESULTS / f"day={day.isoformat()}" / f"part-{part}{self.suffix}"

    def write_part(self, rows: Sequence[Row], path: Path) -> PartFile:
        """Write to `temporary(path)`; `publish` renames it once it is committed.

        Raises:
            OSError: The disk refuses.
            ValueError: There are no rows; an empty file is what a crash leaves.
        """
        if not rows:
            raise ValueError("a part has rows")
        data = self.encode(as_table(rows))
        atomic_files.write(path, data)
        name = f"{path.parent.name}/{path.name}"
        return PartFile(name, len(rows), len(data), hashlib.sha256(data).hexdigest())

    @abstractmethod
    def encode(self, table: pa.Table) -> bytes:
        """A table of `SCHEMA`, as the bytes of a file."""

    @abstractmethod
    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """What `encode` was given; anything else raises errors of Arrow, or is no `SCHEMA`."""

    def decode(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """Batches of `SCHEMA`.

        Raises:
            PartError: The bytes are damaged, or cut off, or hold something else.
        """
        try:
            for batch in self.batches(data):
                read = _completed(batch).select(SCHEMA.names).cast(SCHEMA)
                read.validate(full=True)
                for field in SCHEMA:
                    if not field.nullable and read.column(field.name).null_count:
                        raise PartError(f"a row has no {field.name}")
                yield read
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise PartError(f"it cannot be read: {error}") from error


class Parquet(Sink):
    """Columns, compressed: the one for millions of images."""

    suffix = ".parquet"

    def encode(self, table: pa.Table) -> bytes:
        """With zstd, and dictionaries where values are few."""
        buffer = io.BytesIO()
        columns = table.cast(PARQUET_SCHEMA)
        pq.write_table(columns, buffer, compression="zstd", use_dictionary=list(REPETITIVE))
        return buffer.getvalue()

    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """A row group at a time; a part of another version's rows is refused."""
        file = pq.ParquetFile(pa.BufferReader(data))
        found = (file.schema_arrow.metadata or {}).get(b"cxrview_rows", b"none").decode()
        if found != SCHEMA_VERSION:
            raise PartError(f"its rows are of version {found}, and this is {SCHEMA_VERSION}")
        return file.iter_batches(BATCH_ROWS)  # type: ignore[no-any-return]


class Ndjson(Sink):
    """One JSON object a line, with all columns."""

    suffix = ".ndjson"

    def encode(self, table: pa.Table) -> bytes:
        """Times are ISO 8601 in UTC; numbers keep every digit."""
        lines = (
            json.dumps(record, ensure_ascii=False, allow_nan=False, default=_iso)
            for record in table.to_pylist()
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """Lines with other or without all columns are refused."""
        if not data.endswith(b"\n"):
            raise PartError("its last line is cut off")
        read = pa_json.ReadOptions(block_size=len(data) + 1)  # so that no line is too long
        options = pa_json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
        table = pa_json.read_json(io.BytesIO(data), read, options)
        return table.to_batches(BATCH_ROWS)  # type: ignore[no-any-return]


class Csv(Sink):
    """For spreadsheets, and safe in them (see `cells`)."""

    suffix = ".csv"

    def encode(self, table: pa.Table) -> bytes:
        """With a header; nothing stands for null, and "" for a text that is empty."""
        buffer = io.BytesIO()
        pa_csv.write_csv(_mark(table), buffer, pa_csv.WriteOptions(quoting_style="needed"))
        return buffer.getvalue()

    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The other way round."""
        if not data.endswith(b"\n"):
            raise PartError("its last line is cut off")
        table = pa_csv.read_csv(
            io.BytesIO(data),
            pa_csv.ReadOptions(block_size=len(data) + 1),
            pa_csv.ParseOptions(newlines_in_values=True),
            pa_csv.ConvertOptions(
                column_types=SCHEMA,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
        return _unmark(table).to_batches(BATCH_ROWS)  # type: ignore[no-any-return]


SINKS: dict[str, Sink] = {"parquet": Parquet(), "ndjson": Ndjson(), "csv": Csv()}


@dataclass(frozen=True)
class Part:
    """A published part, its bytes read once: what is hashed is what is counted."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows.

        Raises:
            PartError: It cannot be read.
        """
        (sink,) = (each for each in SINKS.values() if self.name.endswith(each.suffix))
        return sink.decode(self.data)


def parts(folder: Path) -> Iterator[Part]:
    """All published parts of a folder of results, in the order of their names.

    Raises:
        NotADirectoryError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder of results: {folder}")
    suffixes = tuple(each.suffix for each in SINKS.values())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(each.startswith(".") for each in name.parts)
        if path.name.endswith(suffixes) and not hidden and path.is_file():
            yield Part(name.as_posix(), path.read_bytes())


def read_rows(folder: Path) -> Iterator[pa.RecordBatch]:
    """The rows of all parts of a folder, whatever their formats, one part in memory at a time.

    Raises:
        NotADirectoryError: There is no such folder.
        PartError: A part cannot be read; its name is said.
    """
    for part in parts(folder):
        try:
            yield from part.batches()
        except PartError as error:
            raise PartError(f"{part.name}: {error}") from error


def _completed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With the columns that came later, of which an earlier version knew nothing."""
    for name in LATER:
        if name not in batch.schema.names:
            nulls = pa.nulls(batch.num_rows, SCHEMA.field(name).type)
            batch = batch.append_column(SCHEMA.field(name), nulls)
    return batch


def _iso(value: Any) -> str:
    text: str = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text


def _mark(table: pa.Table) -> pa.Table:
    """All columns of text, as they stand in cells."""
    return _replace(table, MARKED, r"'\1")


def _unmark(table: pa.Table) -> pa.Table:
    """What `_mark` was given."""
    return _replace(table, "^'", "")


def _replace(table: pa.Table, pattern: str, by: str) -> pa.Table:
    columns = [
        pc.replace_substring_regex(column, pattern, by) if column.type == pa.string() else column
        for column in table.columns
    ]
    return pa.table(columns, schema=table.schema)
