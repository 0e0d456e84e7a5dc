"""docs/backfill-results.md says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import duckdb
import pytest
from conftest import ROOT
from results import done, not_chest, published, refused

from service.backfill.report.certificate import Certificate
from service.backfill.results.rows import Row

TEXT = (ROOT / "docs" / "backfill-results.md").read_text()


def named(section: str) -> list[str]:
    """What the first column of a section's table names."""
    part = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", part, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def code(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return block


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some results."""
    rows = [
        done(1, view_position="PA", view_position_agrees=True),
        done(2, view_position="LL", view_position_agrees=False),
        done(3, view="lateral", pfi=0.1),
        refused(4),
        not_chest(5, body_part_examined="HAND"),
    ]
    published(rows, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_column_is_described() -> None:
    """In the order of the row."""
    assert named("Columns of a row") == [each.name for each in fields(Row)]


def test_every_field_of_the_certificate_is_described() -> None:
    """In the order of the file."""
    assert named("The certificate") == list(Certificate.model_fields)


def test_the_queries_run(out) -> None:
    """As they stand there, on real parts."""
    days, stations, parts, copied = code("sql").split(";\n")[:4]
    assert [row[1:] for row in duckdb.sql(days).fetchall()] == [
        ("done", None, 4), ("failed", "corrupt_image", 1),
    ]  # fmt: skip
    assert duckdb.sql(stations).fetchall() == [("XRAY1", 1, 2)]
    assert duckdb.sql(parts).fetchall() == [("HAND", 1)]
    duckdb.sql(copied)
    assert (out / "laterals.csv").read_text() == "locator,pfi\nimages/3.dcm,0.1\n"


def test_the_program_runs(out) -> None:
    """It finds the one that disagrees."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code("python")],
        capture_output=True, text=True, check=True, cwd=out,
    )  # fmt: skip
    assert "images/2.dcm" in run.stdout
    assert "images/1.dcm" not in run.stdout
