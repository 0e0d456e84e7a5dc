"""The `cxrview` command, as a person or a script runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from conftest import DATA

from service.cli import main

FRONTAL = DATA / "frontal-0003.jpg"
LATERAL = DATA / "lateral-0013-header-says-pa.dcm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two radiographs in sub-folders under misleading names, a text and hidden files."""
    for name, source in {"a/one.txt": FRONTAL, "b/c/two": LATERAL}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(source, tmp_path / name)
    (tmp_path / "z.dcm").write_text("no image")
    (tmp_path / ".hidden").write_text("not looked at")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("not looked at")
    return tmp_path


def test_json_gives_one_line_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recursive, in order, by content; the exit code says that one file failed."""
    assert main(["classify", "--json", str(folder)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [Path(line["name"]).relative_to(folder).as_posix() for line in lines]
    assert names == ["z.dcm", "a/one.txt", "b/c/two"]
    assert lines[0]["error"]["code"] == "unrecognised_format"
    assert [line["view"] for line in lines[1:]] == ["frontal", "lateral"]
    assert lines[2]["header"] == {"view_position": "PA", "agrees": False}


def test_a_table_is_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file with its view, or why not; and what its header claims."""
    assert main(["classify", str(folder)]) == 1
    table = capsys.readouterr().out
    for word in ("frontal", "lateral", "failed", "unrecognised_format:", "PA", "disagrees"):
        assert word in table


def test_success_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """All answered: exit 0, and warnings and review are remarks."""
    assert main(["classify", str(FRONTAL), str(LATERAL)]) == 0
    assert "failed" not in capsys.readouterr().out


def test_many_files_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    """More than two batches come out as they went in."""
    paths = [str(FRONTAL), str(LATERAL), "pyproject.toml"] * 7
    assert main(["classify", "--json", *paths]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == paths
    assert [line.get("view") for line in lines] == ["frontal", "lateral", None] * 7


def test_a_file_that_cannot_be_opened_is_one_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dangling link among the files is reported; the others are answered."""
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere")
    shutil.copy(FRONTAL, tmp_path / "one.jpg")
    assert main(["classify", str(tmp_path)]) == 1
    assert "No such file" in " ".join(capsys.readouterr().out.split())
    assert main(["classify", "--json", str(tmp_path)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["error"]["code"] == "unreadable_file"
    assert lines[1]["view"] == "frontal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.dcm"], "no such file or folder: nowhere.dcm"),
        (["{empty}"], "no files there"),
        (["--model", "googlenet/9.9.9", "x"], "no complete model googlenet/9.9.9"),
        (["--model", "latest", "x"], "no model reference"),
    ],
)
def test_nothing_to_do_is_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong path or model is told before any work."""
    arguments = [argument.format(empty=tmp_path) for argument in arguments]
    assert main(["classify", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("logged", ["false", "true"])
def test_serve_answers_and_stops_cleanly(logged: str) -> None:
    """It serves on the given port, and ends by SIGTERM; requests are logged where asked for."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
        env=os.environ | {"CXRVIEW_ACCESS_LOG": logged},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "running on" in line)
        url = re.search(r"http://\S+", line)[0]
        answer = httpx2.post(f"{url}/v1/classify", content=FRONTAL.read_bytes(), timeout=30)
        assert answer.json()["view"] == "frontal"
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        log = process.stderr.read()
        assert "Finished server process" in log
        assert ("POST /v1/classify" in log) == (logged == "true")
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()


def test_serve_tells_a_wrong_setting_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that cannot be read is named, without a traceback."""
    monkeypatch.setenv("CXRVIEW_MAX_BATCH_IMAGES", "6")
    assert main(["serve"]) == 2
    message = capsys.readouterr().err
    assert "max_batch_images" in message
    assert "power of two" in message


def test_serve_says_why_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is not there ends the process with its name and a non-zero code."""
    monkeypatch.setenv("CXRVIEW_MODEL", "googlenet/9.9.9")
    run = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode != 0
    assert "googlenet/9.9.9" in run.stderr
