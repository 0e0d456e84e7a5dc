"""A few damaged Store requests; fuzz_stow.py sends as many as it is told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_damaged_requests_are_answered(tmp_path: Path) -> None:
    """As the Standard says, without a defect, and nothing of the patient is logged."""
    program = Path(__file__).with_name("fuzz_stow.py")
    command = [sys.executable, str(program), "--cases", "150"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    for expected in (" 200\n", " 202\n", " 409\n", "400 malformed_multipart"):
        assert expected in run.stdout
