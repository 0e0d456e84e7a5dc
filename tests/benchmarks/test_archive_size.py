"""The benchmark of an archive's size runs, and what it says fits together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_a_thousand_images_are_measured(tmp_path: Path) -> None:
    """All of them, by the real parts; a second database or size goes beside the first."""
    out = tmp_path / "found.json"
    out.write_text('{"postgresql": {}}')
    script = ROOT / "benchmarks" / "archive_size.py"
    words = ["--sizes", "1000", "--databases", "sqlite", "--rounds", "1", "--out", str(out)]
    command = [sys.executable, str(script), *words, "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(out.read_text())
    row = found["sqlite"]["1,000 by 1"]
    assert found["postgresql"] == {}
    assert row["images"] == 1000
    assert 0 < row["first_part_seconds"] < row["seconds"]
    assert row["images_s"] * row["seconds"] > 1000
    assert 100 < row["packed_bytes_an_image"] <= row["bytes_an_image"] < 1000
    parts = ("add", "lease", "known", "commit")
    assert 0 < sum(row["microseconds_of"][name] for name in parts) <= 1000 * row["ledger_ms"]
    assert f"| 1,000 by 1 | {row['images_s']} |" in ran.stdout
