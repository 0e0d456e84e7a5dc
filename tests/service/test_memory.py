"""No file, however it lies, makes the service use more than 512 MB beyond its usual."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import needs
import pytest

EXTRA_BYTES = 512 * 10**6


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_memory_is_bounded() -> None:
    """Giant declarations, bombs and the largest images that are accepted, each in a fresh child."""
    program = Path(__file__).parent / "attacks.py"
    command = [sys.executable, "-W", "ignore", str(program)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, tuple[str, int]] = json.loads(run.stdout)
    assert {name: extra for name, (_, extra) in found.items() if extra > EXTRA_BYTES} == {}
    answered = {name for name, (outcome, _) in found.items() if outcome == "answered"}
    assert answered == {name for name in found if name.startswith("largest")}
    assert found["zip bomb"][0] == "EntryTooLargeError"
