"""Parts of results: every row survives every format, and no reader sees what is not committed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import fields
from datetime import UTC
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from results import DAY, NOON, done, published, refused

from service.backfill.results.atomic_files import publish, temporary
from service.backfill.results.columns import REPETITIVE, SCHEMA, as_rows, as_table
from service.backfill.results.formulas import BEGIN_FORMULA
from service.backfill.results.rows import Row
from service.backfill.results.sinks import SINKS, Csv, Ndjson, Parquet, PartError, parts, read_rows
from service.cli import main

# Texts that formats are known to lose, and any other
ODD = ["", " ", "null", "NA", "true", "1", "=1+1", "'", "''", '"', "a,b", "\r", "\n", "\x00", "-5"]
TEXTS = st.sampled_from(ODD) | st.text()
VALUES = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: TEXTS,
}


def any_row() -> st.SearchStrategy[Row]:
    """Every column with every value of its type, and null where it may be null."""

    def of(hint) -> st.SearchStrategy:
        if get_origin(hint) is Literal:
            return st.sampled_from(get_args(hint))
        return VALUES[hint] if hint in VALUES else st.from_type(hint)

    columns = {}
    for name, hint in get_type_hints(Row).items():
        kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
        columns[name] = st.one_of([st.none() if one is type(None) else of(one) for one in kinds])
    # Years that every reader's clock has
    columns["finished"] = st.none() | st.datetimes(
        NOON.replace(year=1900, tzinfo=None), NOON.replace(year=2200, tzinfo=None),
        timezones=st.just(UTC),
    )  # fmt: skip
    return st.builds(Row, **columns)


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
@given(rows=st.lists(any_row(), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_rows_survive_every_format(sink, rows) -> None:
    """What is read is what was written: nulls, empty texts, quotes, line ends, every digit."""
    read = [row for batch in sink.decode(sink.encode(as_table(rows))) for row in as_rows(batch)]
    assert read == rows


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_a_part_is_seen_once_it_is_published(sink, tmp_path: Path) -> None:
    """Before, there is only a hidden file; after, only the part, with the promised hash."""
    rows = [done(1), refused(2)]
    path = sink.path(tmp_path, DAY, "7")
    part = sink.write_part(rows, path)
    assert part.name == f"day=2026-03-04/part-7{sink.suffix}"
    assert list(path.parent.iterdir()) == [temporary(path)]
    assert not list(read_rows(tmp_path / "results"))

    assert publish(temporary(path)) == path
    assert list(path.parent.iterdir()) == [path]
    data = path.read_bytes()
    assert (part.rows, part.bytes) == (2, len(data))
    assert part.sha256 == hashlib.sha256(data).hexdigest()
    assert [row for batch in read_rows(tmp_path / "results") for row in as_rows(batch)] == rows


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    """After a crash it is unknown whether the part has its name already."""
    path = Parquet().path(tmp_path, DAY, "7")
    Parquet().write_part([done(1)], path)
    publish(temporary(path))
    data = path.read_bytes()
    assert publish(temporary(path)) == path
    assert path.read_bytes() == data


def test_a_part_without_rows_is_not_written(tmp_path: Path) -> None:
    """So an empty file is damage, in every format."""
    with pytest.raises(ValueError, match="rows"):
        Ndjson().write_part([], tmp_path / "day=2026-03-04" / "part-1.ndjson")
    assert not list(tmp_path.iterdir())


def test_what_was_never_written_cannot_be_published(tmp_path: Path) -> None:
    """A part that the ledger has and the disk has not is no success."""
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / ".part-1.csv.tmp")
    with pytest.raises(ValueError, match="temporary"):
        publish(tmp_path / "part-1.csv")


def test_a_crash_while_writing_leaves_nothing_to_read(tmp_path: Path) -> None:
    """Half a temporary file, of any format, is no result."""
    published([done(1)], tmp_path)
    folder = tmp_path / "results" / "day=2026-03-04"
    for name in (".part-2.parquet.tmp", ".part-3.csv.tmp", ".part-4.ndjson", "part-5.parquet.tmp"):
        (folder / name).write_bytes(b"PAR1 half")
    assert sum(batch.num_rows for batch in read_rows(tmp_path / "results")) == 1


@pytest.mark.parametrize("sink", SINKS)
def test_a_job_that_is_killed_leaves_whole_parts(sink, tmp_path: Path) -> None:
    """Whatever it was writing: every part that has its name is read to its end."""
    program = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, "tests")
        from results import done, published
        from service.backfill.results.sinks import SINKS
        for part in range(10**6):
            rows = [done(1000 * part + n) for n in range(1000)]
            published(rows, Path(sys.argv[1]), f"{part:06d}", SINKS[sys.argv[2]])
            print(part, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path, sink], stdout=subprocess.PIPE, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            assert writer.stdout.readline()
        writer.kill()
    folder = tmp_path / "results"
    read = [sum(batch.num_rows for batch in part.batches()) for part in parts(folder)]
    assert len(read) >= 5
    assert set(read) == {1000}


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_part_that_is_cut_off_is_named(sink, left, tmp_path: Path) -> None:
    """What a failing disk leaves of a published part is not taken for a shorter one."""
    part = published([done(n) for n in range(50)], tmp_path, sink=sink)
    path = tmp_path / "results" / part.name
    path.write_bytes(path.read_bytes()[: int(part.bytes * left)])
    with pytest.raises(PartError, match="part-1"):
        list(read_rows(tmp_path / "results"))


@pytest.mark.parametrize(
    ("sink", "data"),
    [
        (Csv(), b"a,b\n1,2\n"),
        (Ndjson(), b'{"locator": "a", "outcome": "done", "weather": 1}\n'),
        (Ndjson(), b'{"outcome": "done"}\n'),
        (Ndjson(), b"[]\n"),
        (Parquet(), b"PAR1"),
    ],
)
def test_other_files_are_no_parts(sink, data) -> None:
    """Other columns, no columns, no rows: an error that says so."""
    with pytest.raises(PartError):
        list(sink.decode(data))


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_columns_of_a_later_version_are_passed_over(sink, tmp_path: Path) -> None:
    """Whatever they hold; audit and export read the others."""
    rows = [done(1, warnings="w"), done(2, warnings="w")]  # csv.writer loses empty texts
    part = published(rows, tmp_path, sink=sink)
    path = tmp_path / "results" / part.name
    if sink.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("weather", [[{"sun": [1]}, None]]), path)
    elif sink.suffix == ".csv":
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([*line, "=sun"] for line in lines)
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        odd = ({"sun": [1, {"a": None}]}, "rain")  # of two types
        added = [record | {"weather": each} for record, each in zip(lines, odd, strict=True)]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in added))
    assert [row for batch in read_rows(tmp_path / "results") for row in as_rows(batch)] == rows
    assert main(["audit", str(tmp_path), f"--out={tmp_path}"]) == 0
    assert main(["export", str(tmp_path), f"--out={tmp_path / 'all.csv'}"]) == 0


def test_parquet_of_another_version_is_refused(tmp_path: Path) -> None:
    """Its columns may mean something else."""
    part = published([done(1)], tmp_path)
    path = tmp_path / "results" / part.name
    table = pq.read_table(path, partitioning=None)
    assert table.schema.metadata[b"cxrview_rows"] == b"1"
    pq.write_table(table.replace_schema_metadata({"cxrview_rows": "99"}), path)
    with pytest.raises(PartError, match="version 99"):
        list(read_rows(tmp_path / "results"))


def test_a_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    """A locator from a file system of another century does not stop a job."""
    odd = os.fsdecode(b"R\xf6ntgen.dcm")
    for sink in SINKS.values():
        published([done(1, locator=odd)], tmp_path, sink=sink)
    names = {row.locator for batch in read_rows(tmp_path / "results") for row in as_rows(batch)}
    assert names == {r"R\udcf6ntgen.dcm"}


@pytest.mark.parametrize("begin", BEGIN_FORMULA)
def test_a_csv_part_has_no_formulas(begin, tmp_path: Path) -> None:
    """A station's name is free text, and spreadsheets run a text that begins so."""
    part = published([done(1, station=f'{begin}HYPERLINK("x")')], tmp_path, sink=Csv())
    with (tmp_path / "results" / part.name).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["station"] == f'\'{begin}HYPERLINK("x")'


def test_others_read_the_parts_while_the_job_runs(tmp_path: Path) -> None:
    """pyarrow, DuckDB and pandas see the parts, the day as a column, and nothing unfinished."""
    published([done(n) for n in range(3)], tmp_path)
    published([refused(3)], tmp_path, "2", day=DAY.replace(day=5))
    Parquet().write_part([done(9)], Parquet().path(tmp_path, DAY, "3"))
    folder = tmp_path / "results"

    arrow = ds.dataset(folder, format="parquet", partitioning="hive")
    assert arrow.count_rows() == 4
    assert arrow.count_rows(filter=ds.field("day") == "2026-03-05") == 1
    assert arrow.count_rows(filter=ds.field("view") == "frontal") == 3

    days = duckdb.sql(
        f"SELECT day, count(*) FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=true) "
        "GROUP BY day ORDER BY day"
    ).fetchall()
    assert [(str(day), count) for day, count in days] == [("2026-03-04", 3), ("2026-03-05", 1)]

    frame = pd.read_parquet(folder)
    assert len(frame) == 4
    assert frame["finished"].dt.tz is not None


def test_duckdb_reads_the_other_formats(tmp_path: Path) -> None:
    """Without being told a type."""
    for sink, read in ((Ndjson(), "read_json_auto"), (Csv(), "read_csv_auto")):
        published([done(n) for n in range(3)], tmp_path, sink=sink)
        names = f"{tmp_path}/results/**/*{sink.suffix}"
        assert duckdb.sql(f"SELECT sum(pfi), any_value(review) FROM {read}('{names}')").fetchall()[
            0
        ] == (pytest.approx(3 * 0.99), False)


def test_the_schema_is_the_row() -> None:
    """Column by column, null where the row may be null, few values as dictionaries."""
    assert SCHEMA.names == [each.name for each in fields(Row)]
    assert {each.name for each in SCHEMA if not each.nullable} == {
        "locator", "outcome", "warnings", "attempts", "model", "model_sha256",
    }  # fmt: skip
    assert set(REPETITIVE) <= set(SCHEMA.names)


def test_ndjson_is_one_object_a_line() -> None:
    """With all columns, and times that say their zone."""
    text = Ndjson().encode(as_table([done(1), refused(2)])).decode()
    first, second = (json.loads(line) for line in io.StringIO(text))
    assert first["finished"] == "2026-03-04T12:00:01.000000+00:00"
    assert second["view"] is None
    assert list(second) == SCHEMA.names
