"""A few damaged and hostile files; fuzz.py reads as many as it is told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import needs
import pytest


@pytest.mark.parametrize("options", [["--cases", "400"], ["--cases", "150", "--structured"]])
@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_damaged_files_are_answered_or_refused(tmp_path: Path, options: list[str]) -> None:
    """No exception of another kind, no crash, no hang, no memory without bound; both do occur."""
    program = Path(__file__).parent / "fuzz.py"
    command = [sys.executable, "-W", "error::ResourceWarning", str(program), *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "answered" in run.stdout
    assert "corrupt_image" in run.stdout
