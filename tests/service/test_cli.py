"""The `cxrview` command, as a person or a script runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import needs
import pytest
from conftest import DATA

from service.cli import main
from service.uploads.files import files_below

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


def lines_of(capsys: pytest.CaptureFixture[str], *paths: Path) -> dict[str, str]:
    """By name: the view, or the code of the error. Each path has one line."""
    assert main(["classify", "--json", *map(str, paths)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {line["name"]: line.get("view") or line["error"]["code"] for line in lines}
    assert len(found) == len(lines)
    return found


def test_what_is_no_regular_file_is_one_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A named pipe is not waited for, a socket or device not opened; the others are answered."""
    shutil.copy(FRONTAL, tmp_path / "one.jpg")
    os.mkfifo(tmp_path / "pipe")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "self").symlink_to("self")
    found = lines_of(capsys, tmp_path)
    failures = dict.fromkeys(("pipe", "socket", "zero", "self"), "unreadable_file")
    assert {name.removeprefix(f"{tmp_path}/"): what for name, what in found.items()} == {
        "one.jpg": "frontal"
    } | failures
    assert lines_of(capsys, tmp_path / "pipe") == {f"{tmp_path}/pipe": "unreadable_file"}


def test_a_file_over_the_limit_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no image by its first bytes is said to be none, whatever its size."""
    for name, start in {"other.bin": b"PK\3\4", "image.jpg": b"\xff\xd8\xff"}.items():
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(6 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = lines_of(capsys, tmp_path / "image.jpg", tmp_path / "other.bin")
    assert list(found.values()) == ["entry_too_large", "unrecognised_format"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    monkeypatch.setenv("CXRVIEW_MAX_UPLOAD_BYTES", "1000")
    assert lines_of(capsys, FRONTAL) == {str(FRONTAL): "entry_too_large"}


def test_links_to_folders_are_followed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that leads back to where it is, is a failure; so is one that was followed before."""
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    shutil.copy(FRONTAL, tmp_path / "in/a/one.jpg")
    shutil.copy(LATERAL, tmp_path / "out/two")
    links = {"b": "a", "a/back": "..", "out": "../out", "a/self": "self", "gone": "nowhere"}
    for link, target in links.items():
        (tmp_path / "in" / link).symlink_to(target)
    found = lines_of(capsys, tmp_path / "in")
    assert {
        Path(name).relative_to(tmp_path / "in").as_posix(): what for name, what in found.items()
    } == {
        "a/one.jpg": "frontal",
        "a/self": "unreadable_file",
        "a/back": "unreadable_file",
        "b/one.jpg": "frontal",
        "b/self": "unreadable_file",
        "b/back": "unreadable_file",
        "gone": "unreadable_file",
        "out/two": "lateral",
    }


def test_many_links_to_many_folders_come_to_an_end(tmp_path: Path) -> None:
    """Two links to the next folder in each of 40 would make a million million paths."""
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        for link in "ab":
            (tmp_path / f"{number}" / link).symlink_to(f"../{number + 1}")
    assert len(list(files_below(str(tmp_path)))) < 10_000


@pytest.mark.skipif(os.geteuid() == 0, reason=needs.NOT_ROOT)
def test_a_folder_that_cannot_be_listed_is_one_failure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the others are answered."""
    (folder / "a").chmod(0)
    assert list(lines_of(capsys, folder).values()) == [
        "unrecognised_format",
        "unreadable_file",
        "lateral",
    ]
    (folder / "a").chmod(0o700)


def test_names_can_neither_break_the_table_nor_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no text, control characters, and what looks like a mark of style."""
    (tmp_path / "[").mkdir()
    for name in (b"[/red].dcm", b"\xff.dcm", b"\x1b[2J\n.dcm"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert main(["classify", str(tmp_path)]) == 1
    table = capsys.readouterr().out
    for shown in ("[/red].dcm", "\\xff.dcm", "\\x1b[2J\\n.dcm"):
        assert shown in table
    assert len(lines_of(capsys, tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.dcm"], "no such file or folder: nowhere.dcm"),
        (["{empty}"], "no files there: {empty}"),
        (
            ["https://pacs.example/a//b?c=d"],
            "no such file or folder: https://pacs.example/a//b?c=d",
        ),
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
    assert message.format(empty=tmp_path) in " ".join(capsys.readouterr().err.split())


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
