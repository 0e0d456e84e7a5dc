"""What .ci/tools fetches, which other tests drive."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

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
    "orthanc/Orthanc": ("--version", "program 1.10."),
    "orthanc-1.12/Orthanc": ("--version", "program 1.12."),
    "dcmtk/dcml2pnm": ("--version", "dcml2pnm v3."),
    "dcmtk/dsrdump": ("--version", "dsrdump v3."),
    "dcmtk/storescu": ("--version", "storescu v3."),
    "dicom3tools/dciodvfy": ("-version", "dicom3tools Version: 1."),
}
# What every machine has: the C library
SYSTEM = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1"}


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


@pytest.mark.parametrize("name", ["program", "libOrthancDicomWeb.so", "libOrthancPython.so"])
def test_orthanc_brings_its_libraries(name: str) -> None:
    """So it runs where Orthanc was never installed."""
    path = tool(f"orthanc/{name}")
    own = str(path.parent / "lib")
    variables = os.environ | {"LD_LIBRARY_PATH": own}
    listed = subprocess.check_output(["ldd", path], env=variables, text=True)
    found = dict(re.findall(r"(\S+) => (.*?)(?: \(0x|$)", listed, re.MULTILINE))
    assert {"libdcmdata.so.17", "libpython3.11.so.1.0"} & found.keys()
    assert {name for name, at in found.items() if not at.startswith(own)} <= SYSTEM, listed


@pytest.mark.parametrize("path", [*(ROOT / ".ci").iterdir(), *ROOT.glob("deploy/*.sh")], ids=str)
def test_no_script_ends_because_a_reader_has_read_enough(path: Path) -> None:
    """`writer | head` ends with 141 under pipefail, if the writer writes its next line too late."""
    script = path.read_text()
    assert "pipefail" in script
    assert not re.findall(r"\|\s*(?:head|grep -\S*[mq]|sed [^|]*\bq\b).*", script)
