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
import pandas as pd
import pytest
from conftest import DATA
from heads import Mark, changed, marked, with_heads
from images import dicom, radiograph

from cxrview.results import COLUMNS
from model_store import DEFAULT_MODEL, Store
from service.api.environment import read_settings
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
    """Recursive, in order, by content; what is no image is passed over, and counted."""
    assert main(["classify", "--json", str(folder)]) == 0
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    names = [Path(line["name"]).relative_to(folder).as_posix() for line in lines]
    assert names == ["a/one.txt", "b/c/two"]
    assert [line["view"] for line in lines] == ["frontal", "lateral"]
    assert (lines[1]["header"]["view_position"], lines[1]["header"]["agrees"]) == ("PA", False)
    assert lines[1]["chest"] >= lines[1]["chest_threshold"]
    assert lines[1]["orientation"]["rotation_degrees"] == 0
    assert output.err.split(", ")[:2] == ["1 frontal", "1 lateral"]
    assert "1 skipped" in output.err


def test_lines_are_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file with its view, or why not; and what its header claims. A named path must be one."""
    assert main(["classify", str(folder), "pyproject.toml"]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [line.split()[0] for line in lines] == ["frontal", "lateral", "failed"]
    assert lines[1].endswith("header PA DISAGREES")
    assert "unrecognised_format:" in lines[2]
    assert "1 failed (unrecognised_format 1)" in output.err


def test_a_model_with_heads_says_more(
    headed_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no chest radiograph is counted, and how the others lie is a remark."""
    named = {"ViewPosition": "PA", "BodyPartExamined": "CHEST"}
    marks: dict[str, list[Mark]] = {"a": [], "b": ["no_chest"], "c": ["turn_90", "inverted"]}
    for name, each in (marks | {"d": ["mirrored"]}).items():
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(dicom(marked(radiograph(), *each), **named))
    words = ["--model", "swift/2.0.0", "--model-store", str(headed_store), str(tmp_path / "images")]
    assert main(["classify", *words]) == 0
    output = capsys.readouterr()
    plain, hand, turned, mirrored = output.out.splitlines()
    assert plain.startswith("frontal   0.")
    assert plain.endswith("a  header PA agrees")
    assert hand.startswith("not_chest 0.")
    assert hand.endswith("b  body part CHEST DISAGREES")
    assert turned.endswith("c  turn by 90, inverted, header PA agrees")
    assert mirrored.endswith("d  mirrored, header PA agrees")
    assert output.err == "3 frontal, 0 lateral, 1 not_chest, 0 of them for review\n"
    assert main(["classify", "--json", *words]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["view"] for line in lines] == ["frontal", "not_chest", "frontal", "frontal"]
    assert [line["orientation"] is None for line in lines] == [False, True, False, False]
    assert main(["classify", "--csv", "--out", str(tmp_path / "csv"), *words]) == 0
    table = pd.read_csv(tmp_path / "csv")
    assert list(table.columns) == list(COLUMNS)
    assert list(table.rotation_degrees.fillna(-1)) == [0, -1, 90, 0]
    assert list(table.body_part_agrees) == [True, False, True, True]


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
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"\xff\xd8\xff")
    assert main(["classify", str(tmp_path)]) == 1
    table = capsys.readouterr().out
    for shown in ("[/red].dcm", "\\xff.dcm", "\\x1b[2J\\n.dcm"):
        assert shown in table
    assert len(lines_of(capsys, tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "no files in {empty}"),
        (["--parquet", "{empty}"], "--parquet needs --out FILE"),
        (["--model", "googlenet/9.9.9", "x"], "no complete model googlenet/9.9.9"),
        (["--model", "latest", "x"], "no model reference"),
        (["--model", "swift", "x"], "there are swift/1.0.0, swift/1.1.0"),
        (["--out", "{empty}/no/such", "x"], "No such file or directory"),
    ],
)
def test_nothing_to_do_is_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong model or option, or a folder without files."""
    arguments = [argument.format(empty=tmp_path) for argument in arguments]
    assert main(["classify", *arguments]) == 2
    assert message.format(empty=tmp_path) in " ".join(capsys.readouterr().err.split())


def test_a_path_that_does_not_exist_is_one_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Its neighbours are answered; so is a URL, which is none."""
    paths = ["nowhere.dcm", str(FRONTAL), "https://pacs.example/a//b?c=d"]
    assert main(["classify", "--json", *paths]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == paths
    assert [line.get("error", {}).get("code") for line in lines] == [
        "unreadable_file",
        None,
        "unreadable_file",
    ]


def test_tables_are_for_programs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """CSV and Parquet hold the same; a name that a spreadsheet would run is marked in CSV."""
    shutil.copy(FRONTAL, folder / "=1+1")
    out = tmp_path_factory.mktemp("out")
    paths = ["=1+1", ".", "nowhere"]
    with contextlib.chdir(folder):
        for form in ("csv", "parquet"):
            words = [f"--{form}", "--out", str(out / form), "--model", "swift/1.1.0", "--jobs", "1"]
            assert main(["classify", *words, *paths]) == 1
    csv = pd.read_csv(out / "csv", dtype={"view": "string", "error": "string"})
    rows = pd.read_parquet(out / "parquet")
    assert list(csv.columns) == list(rows.columns) == list(COLUMNS)
    assert list(rows.name) == ["=1+1", "./=1+1", "./a/one.txt", "./b/c/two", "nowhere"]
    assert list(csv.name) == ["'=1+1", *rows.name[1:]]
    for table in (csv, rows):
        assert list(table.view.dropna()) == ["frontal", "frontal", "frontal", "lateral"]
        assert list(table.error.dropna()) == ["unreadable_file"]


def test_one_file_may_come_by_standard_input() -> None:
    """As at the end of a pipe."""
    run = subprocess.run(
        [sys.executable, "-m", "service.cli", "classify", "--json", "-"],
        input=LATERAL.read_bytes(),
        capture_output=True,
        check=True,
    )
    line = json.loads(run.stdout)
    assert (line["name"], line["view"]) == ("-", "lateral")


def slow_folder(path: Path, count: int) -> Path:
    for number in range(count):
        (path / f"{number:04}.jpg").write_bytes(FRONTAL.read_bytes())
    return path


def test_what_was_answered_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    """Results go out as they come, one after the other; the exit code is that of an interrupt."""
    out = tmp_path / "views.csv"
    images = tmp_path / "images"
    images.mkdir()
    words = ["classify", "--csv", "--out", str(out), str(slow_folder(images, 4000))]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *words], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not out.exists() or out.read_text().count("\n") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    lines = out.read_text().splitlines()
    assert 20 <= len(lines) < 4000
    assert all(line.count(",") == lines[0].count(",") for line in lines)
    assert f"{len(lines) - 1} frontal" in errors
    assert "Traceback" not in errors


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    """As `| head -1` does."""
    run = subprocess.run(
        f"{sys.executable} -m service.cli classify {slow_folder(tmp_path, 200)} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.startswith("frontal")
    assert "rror" not in run.stderr


def test_models_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With their figures, and which one is the default."""
    assert main(["models"]) == 0
    versions = capsys.readouterr().out.partition("AUROC")[0]  # before the table of heads
    lines = [line for line in versions.splitlines() if re.match(r"│ [\w-]+/\d", line)]
    assert len(lines) == len(Store().list())
    assert [line.split()[1] for line in lines if "default" in line] == [DEFAULT_MODEL]
    assert main(["models", "--model-store", str(tmp_path)]) == 2


def test_the_figures_of_heads_are_listed(
    headed_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a table of their own, which models without heads do not have."""
    assert main(["models", "--model-store", str(headed_store)]) == 0
    found = capsys.readouterr().out
    rows = [line.split() for line in found.splitlines() if "99.00%" in line]
    assert [row[3] for row in rows] == ["chest", "mirrored"]
    assert all("0.9990" in row for row in rows)
    assert main(["models"]) == 0
    shipped = capsys.readouterr().out
    assert "googlenet/1.1.0" in shipped
    heads = shipped[shipped.index("AUROC") :]
    assert set(re.findall(r"[\w-]+/\d+\.\d+\.\d+", heads)) == {
        "swift/2.0.0",
        "swift/2.1.0",
        "swift/2.2.0",
        "swift/2.3.0",
    }


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """And `--version` says which it is."""
    assert main([]) == 2
    assert "classify" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("cxrview ")


def test_an_unknown_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that is misspelt would have no effect; the nearest one is named."""
    monkeypatch.setenv("CXRVIEW_MAX_UPLOAD_BYTE", "1")
    assert main(["serve"]) == 2
    assert "did you mean CXRVIEW_MAX_UPLOAD_BYTES?" in capsys.readouterr().err
    assert main(["classify", str(FRONTAL)]) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("CXRVIEW_PORT", "CXRVIEW_PORT_8000_TCP_ADDR", "CXRVIEW_SERVICE_PORT_HTTP"),
        *("CXRVIEW_BLUE_SERVICE_HOST", "CXRVIEW_DICOMWEB_TOKEN"),
    ],
)
def test_variables_of_others_are_let_be(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Kubernetes describes each Service to every pod, ours too."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    assert read_settings().model == DEFAULT_MODEL


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
    assert "CXRVIEW_MAX_BATCH_IMAGES: must be" in message
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


def test_serve_says_why_a_model_must_not_serve(tmp_path: Path) -> None:
    """In one line of the log, without a traceback; so does a command that runs a model."""
    Store(tmp_path).add(with_heads(edit=changed("chest", "Unsqueeze", 1)))
    model = ["--model", "swift/2.0.0"]
    told = "the output chest of 1 images must be float32 of the shape (1,)"
    for begins, words in (
        ("ERROR", ["serve", "--port", "0"]),
        ("error:", ["classify", "x", "--model-store", str(tmp_path)]),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "service.cli", *words, *model],
            env=os.environ | {"CXRVIEW_MODEL_STORE": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert run.returncode == (3 if words[0] == "serve" else 2)
        assert run.stderr.count(told) == run.stderr.count(f"{begins} {told}") == 1
        assert "Traceback" not in run.stderr
