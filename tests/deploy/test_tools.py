"""What .ci/tools fetches, which other tests drive."""

from __future__ import annotations

import subprocess

import pytest
from conftest import ROOT
from tools import tool

VERSIONS = {
    "prometheus-2/prometheus": ("--version", "version 2."),
    "prometheus-2/promtool": ("--version", "version 2."),
    "prometheus-3/prometheus": ("--version", "version 3."),
    "prometheus-3/promtool": ("--version", "version 3."),
    "helm-3/helm": ("version", 'Version:"v3.'),
    "helm-4/helm": ("version", 'Version:"v4.'),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_tool_is_what_its_folder_says(name: str) -> None:
    """Of that major version, and it runs here."""
    argument, says = VERSIONS[name]
    run = subprocess.run([tool(name), argument], capture_output=True, text=True, check=True)
    assert says in run.stdout + run.stderr


def test_what_is_there_is_kept() -> None:
    """A second run fetches nothing."""
    paths = [tool(name) for name in VERSIONS]
    before = [path.stat().st_mtime_ns for path in paths]
    run = subprocess.run([ROOT / ".ci/tools", paths[0].parents[1]], capture_output=True, check=True)
    assert (run.stdout, run.stderr) == (b"", b"")
    assert [path.stat().st_mtime_ns for path in paths] == before
