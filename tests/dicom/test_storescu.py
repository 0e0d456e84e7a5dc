"""DCMTK's sender: all that it proposes, and how it hears of refusals."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live
from pydicom import uid
from receiving import UID, file_of, receiving, subjects, wait_for
from tools import tool

# The option with which it proposes a transfer syntax
PROPOSALS = {
    "-x=": uid.ExplicitVRLittleEndian,
    "-xe": uid.ExplicitVRLittleEndian,
    "-xb": uid.ExplicitVRBigEndian,
    "-xi": uid.ImplicitVRLittleEndian,
    "-xs": uid.JPEGLosslessSV1,
    "-xy": uid.JPEGBaseline8Bit,
    "-xx": uid.JPEGExtended12Bit,
    "-xv": uid.JPEG2000Lossless,
    "-xw": uid.JPEG2000,
    "-xt": uid.JPEGLSLossless,
    "-xu": uid.JPEGLSNearLossless,
    "-xr": uid.RLELossless,
    "-xd": uid.DeflatedExplicitVRLittleEndian,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("receiver")


@pytest.fixture(scope="module")
def live(folder) -> Iterator[Live]:
    with receiving(folder) as service:
        yield service


def storescu(live: Live, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = tool("dcmtk/storescu")
    where = ("-aec", "CXRVIEW", "127.0.0.1", str(live.dicom_port))
    options = [str(each) for each in arguments if str(each).startswith(("-", "+"))]
    files = [str(each) for each in arguments if str(each) not in options]
    return subprocess.run(
        [program, *options, *where, *files],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("option", PROPOSALS)
def test_all_proposals(live, folder, tmp_path, option):
    """In the syntax of the file, which is never converted."""
    number = 10 + list(PROPOSALS).index(option)
    path = tmp_path / "image.dcm"
    path.write_bytes(file_of(number, PROPOSALS[option]))
    sent = storescu(live, "-v", option, path)
    assert sent.returncode == 0, sent.stderr
    assert "Received Store Response (Success)" in sent.stderr
    wait_for(lambda: f"{UID}.{number}" in subjects(folder))


def test_many_files_and_a_bad_one(live, folder, tmp_path):
    """It goes on after a refusal, and its exit code tells of it."""
    for number in range(100, 104):
        (tmp_path / f"{number}.dcm").write_bytes(file_of(number))
    (tmp_path / "100.dcm").write_bytes(file_of(100, NumberOfFrames="2"))
    sent = storescu(live, "-v", "-xe", "+sd", "--no-halt", tmp_path)
    assert sent.stderr.count("Received Store Response (Success)") == 3
    assert "Error: CannotUnderstand" in sent.stderr, sent.stderr


def test_every_option_of_contexts_at_once(live, tmp_path):
    """`-pm` proposes all its storage classes, in as many contexts as fit."""
    path = tmp_path / "image.dcm"
    path.write_bytes(file_of(200))
    assert storescu(live, "-R", "-xe", path).returncode == 0
    assert storescu(live, "--max-pdu", path).returncode != 0  # its own mistake
    assert storescu(live, "-xe", path).returncode == 0


def test_echo(live):
    """`echoscu`, with as many contexts as it can propose."""
    program = tool("dcmtk/echoscu")
    where = ("-aec", "CXRVIEW", "127.0.0.1", str(live.dicom_port))
    run = subprocess.run([program, "-pts", "38", "-ppc", "128", *where], check=False, timeout=300)
    assert run.returncode == 0
