"""The formats of parts: Parquet, NDJSON or CSV. A part exists whole or not at all.

A part is first written under a hidden name. After the ledger has committed it, it gets its final
name (`atomic_files.publish`). So readers see only committed parts. A hidden part that a crash has
left is published or deleted when the job resumes.
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
    """A part cannot be read, or has rows of another version."""


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
        """The final path of a part, by the day of processing and the part's id."""
        return out / RESULTS / f"day={day.isoformat()}" / f"part-{part}{self.suffix}"

    def write_part(self, rows: Sequence[Row], path: Path) -> PartFile:
        """Write the temporary file of `path`; after the commit, `publish` renames it.

        Raises:
            UnwritableError: The folder cannot be written to.
            ValueError: There are no rows.
        """
        if not rows:
            raise ValueError("a part has rows")
        data = self.encode(as_table(rows))
        atomic_files.write(path, data)
        name = f"{path.parent.name}/{path.name}"
        return PartFile(name, len(rows), len(data), hashlib.sha256(data).hexdigest())

    @abstractmethod
    def encode(self, table: pa.Table) -> bytes:
        """The bytes of a file with a table of `SCHEMA`."""

    @abstractmethod
    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The inverse of `encode`; other bytes raise an Arrow error, or give another schema."""

    def decode(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The rows of a part, as batches of `SCHEMA`.

        Raises:
            PartError: The bytes are damaged or cut off, or hold something else.
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
    """Compressed columns; the format for millions of images."""

    suffix = ".parquet"

    def encode(self, table: pa.Table) -> bytes:
        """Compressed with zstd; dictionaries for columns with few values."""
        buffer = io.BytesIO()
        columns = table.cast(PARQUET_SCHEMA)
        pq.write_table(columns, buffer, compression="zstd", use_dictionary=list(REPETITIVE))
        return buffer.getvalue()

    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """One row group at a time; rows of another version are refused."""
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
        """The rows, without columns of later versions."""
        if not data.endswith(b"\n"):
            raise PartError("its last line is cut off")
        read = pa_json.ReadOptions(block_size=len(data) + 1)  # so that no line is too long
        options = pa_json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
        table = pa_json.read_json(io.BytesIO(data), read, options)
        return table.to_batches(BATCH_ROWS)  # type: ignore[no-any-return]


class Csv(Sink):
    """CSV that is safe to open in a spreadsheet (see `formulas`)."""

    suffix = ".csv"

    def encode(self, table: pa.Table) -> bytes:
        """CSV with a header; an empty cell is null, and "" is an empty text."""
        buffer = io.BytesIO()
        pa_csv.write_csv(_mark(table), buffer, pa_csv.WriteOptions(quoting_style="needed"))
        return buffer.getvalue()

    def batches(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The rows, with the original texts."""
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
    """A published part. Its bytes are read once, so that the hash is of the rows counted."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows.

        Raises:
            PartError: The part cannot be read.
        """
        (sink,) = (each for each in SINKS.values() if self.name.endswith(each.suffix))
        return sink.decode(self.data)


def results_in(folder: Path) -> Path:
    """The folder with the parts of a job: `results` in the given one, else the given one itself."""
    return folder / RESULTS if (folder / RESULTS).is_dir() else folder


def parts(folder: Path) -> Iterator[Part]:
    """All published parts of a folder of results, by name.

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
    """The rows of all parts of a folder, in any format, with one part in memory at a time.

    Raises:
        NotADirectoryError: There is no such folder.
        PartError: A part cannot be read; the message names it.
    """
    for part in parts(folder):
        try:
            yield from part.batches()
        except PartError as error:
            raise PartError(f"{part.name}: {error}") from error


def _completed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the columns of `LATER`, as nulls, to rows of an earlier version."""
    for name in LATER:
        if name not in batch.schema.names:
            nulls = pa.nulls(batch.num_rows, SCHEMA.field(name).type)
            batch = batch.append_column(SCHEMA.field(name), nulls)
    return batch


def _iso(value: Any) -> str:
    text: str = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text


def _mark(table: pa.Table) -> pa.Table:
    """Mark the texts of all columns for a spreadsheet."""
    return _replace(table, MARKED, r"'\1")


def _unmark(table: pa.Table) -> pa.Table:
    """The inverse of `_mark`."""
    return _replace(table, "^'", "")


def _replace(table: pa.Table, pattern: str, by: str) -> pa.Table:
    columns = [
        pc.replace_substring_regex(column, pattern, by) if column.type == pa.string() else column
        for column in table.columns
    ]
    return pa.table(columns, schema=table.schema)
