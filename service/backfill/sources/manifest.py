"""A list of files as a source: a CSV or Parquet table with a column of paths."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from service.backfill.results.rows import SourceError
from service.backfill.sources.files import Root
from service.backfill.sources.names import locator_of, name_of
from service.backfill.sources.options import Options
from service.inference import Buffer

COLUMNS = ("file", "path")
SUFFIXES = (".csv", ".parquet")


class ManifestOptions(Options):
    """Options of a list of files."""

    column: str | None = None
    """The column of paths. Default: `file`, or else `path`."""
    root: Path | None = None
    """Paths are relative to this folder and within it. Default: the list's folder."""


class ManifestSource:
    """The files that a table names; the locator is the path in its root. Repeated paths are one.

    Raises:
        SourceError: There is no such root.
    """

    def __init__(self, path: Path, options: ManifestOptions) -> None:
        self._path = path
        self._column = options.column
        self._root = Root(options.root or path.parent, options.max_image_bytes)

    def find(self) -> Iterator[str]:
        """The files in the order of the table, which is read a few rows at a time.

        Raises:
            SourceError: The table cannot be read, or a row names no path within the root.
        """
        rows = _parquet if self._path.suffix.lower() == ".parquet" else _csv
        for place, value in rows(self._path, self._column):
            yield locator_of(self._name(place, value))

    def read(self, locator: str) -> Buffer:
        """See `Source`."""
        return self._root.read(name_of(locator))

    def close(self) -> None:
        """Nothing to close."""

    def _name(self, place: str, value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise SourceError(f"{place} of the list names no file")
        name = os.path.relpath(os.path.normpath(self._root.path / value), self._root.path)
        if name == "." or name.split("/")[0] == "..":
            raise SourceError(f"{place} of the list leaves {self._root.path}")
        return name


def _csv(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            place = header.index(_chosen(header, column))
            for row in reader:
                if row and len(row) != len(header):
                    raise SourceError(
                        f"line {reader.line_num} of the list has {len(row)} fields, "
                        f"not {len(header)} as its header"
                    )
                if row:  # skip empty lines
                    yield f"line {reader.line_num}", row[place]
    except csv.Error as error:
        raise SourceError(f"line {reader.line_num} of the list is no CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"after line {reader.line_num} the list is not UTF-8") from error
    except OSError as error:
        raise SourceError(f"the list cannot be read: {error.strerror}") from error


def _parquet(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise SourceError("Parquet needs the extra `backfill`, or take a CSV") from error
    count = 0
    try:
        with parquet.ParquetFile(path) as file:
            chosen = _chosen(file.schema_arrow.names, column)
            for batch in file.iter_batches(columns=[chosen]):
                for value in batch.column(0).to_pylist():
                    count += 1
                    yield f"row {count}", value
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"the list cannot be read after row {count}") from error


def _chosen(names: Iterable[str], column: str | None) -> str:
    wanted = COLUMNS if column is None else (column,)
    for name in wanted:
        if name in names:
            return name
    raise SourceError(f"the list has no column {' or '.join(wanted)}")
