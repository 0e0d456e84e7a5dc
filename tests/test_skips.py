"""Where a machine lacks radiographs or tools, their tests are skipped, and the run says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import needs
from conftest import ROOT, SLOW

RADIOGRAPHS = "tests/service/imaging/test_radiograph.py::test_every_real_file_is_read"
TOOLS = "tests/deploy/test_rules.py::test_promtool_agrees"


def test_what_is_skipped_is_added_up_and_no_failure(tmp_path: Path) -> None:
    """With how to get it; on a fresh machine, the run ends with 0."""
    environment = os.environ | {"CXRVIEW_SHARED": str(tmp_path / "none")}
    environment.pop("CXRVIEW_TOOLS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", RADIOGRAPHS, TOOLS]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    _, _, said = run.stdout.partition("= 3 tests skipped =")
    assert [line.strip() for line in said.splitlines()[1:3]] == [
        f"2 {needs.TOOLS.replace('needs', 'need')}",
        f"1 {needs.RADIOGRAPHS}",
    ]
    assert run.stderr == ""


def test_what_is_slow_is_there() -> None:
    """A module that was renamed would be run with the quick ones."""
    assert {name for name in SLOW if not (ROOT / "tests" / name).is_file()} == set()
