"""`cxrview backfill` and `cxrview audit`, as an operator types them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from conftest import DATA
from images import dicom, radiograph
from results import CHEST, done, not_chest, published, refused

from model_store import Store
from service.backfill.job_folder import alone
from service.backfill.results.sinks import SINKS, read_rows
from service.cli import main
from service.cli.backfill import FORMATS

IMAGES = 300  # googlenet needs some seconds for them
SWIFT = "--model=swift/1.0.0"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The bundled radiographs, and a file that is none."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for path in (*DATA.glob("*.jpg"), *DATA.glob("*.dcm")):
        shutil.copy(path, folder)
    (folder / "notes.txt").write_text("no image")
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_becomes_results_and_a_certificate(
    archive: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In each format; and once more, from the results alone."""
    out = tmp_path / "out"
    assert main(["backfill", str(archive), f"--out={out}", f"--format={form}", SWIFT]) == 0
    assert "7 done, 1 skipped, 0 failed of 8 images" in said(capsys)
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate["valid"]
    assert certificate["found_by"] == "source"
    assert certificate["views"] == {"frontal": 3, "lateral": 4}
    assert certificate["header"]["view_position"]["disagrees"] == 1
    assert sum(batch.num_rows for batch in read_rows(out / "results")) == 8
    worklist = (out / "audit" / "worklist.csv").read_text()
    assert "lateral-0013-header-says-pa.dcm" in worklist
    elsewhere = tmp_path / "elsewhere"
    assert main(["audit", str(out / "results"), f"--out={elsewhere}"]) == 0
    again = json.loads((elsewhere / "certificate.json").read_text())
    for name in ("outcomes", "views", "header", "codes", "parts", "models"):
        assert again[name] == certificate[name]


def test_what_is_left_out_is_certified(archive: Path, tmp_path: Path) -> None:
    """So an operator can reconcile the counts with the archive; also after a resume."""
    out, words = tmp_path / "out", ["backfill", str(archive), SWIFT]
    (archive / ".DS_Store").write_text("")
    (archive / ".thumbnails").mkdir()
    (archive / "elsewhere").symlink_to(tmp_path)
    assert main([*words, f"--out={out}", "--limit=3"]) == 1
    assert main([*words, f"--out={out}", "--resume"]) == 0
    certificate = json.loads((out / "certificate.json").read_text())
    assert (certificate["found"], certificate["left_out"]) == (8, {"hidden": 2, "link": 1})
    page = " ".join((out / "certificate.html").read_text().split())
    assert "Not among them: 2 hidden, 1 link." in page
    (listed := tmp_path / "list.csv").write_text(f"file\n{archive}/frontal-0003.jpg\n")
    words[1] = str(listed)
    assert main([*words, f"--out={tmp_path / 'other'}", f"--option=root={archive}"]) == 0
    assert json.loads((tmp_path / "other" / "certificate.json").read_text())["left_out"] is None


def test_what_is_no_chest_radiograph_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line of its own, if there is any."""
    published([done(1, **CHEST), not_chest(2), refused(3)], tmp_path)
    assert main(["audit", str(tmp_path), f"--out={tmp_path}"]) == 0
    told = said(capsys)
    assert "1 of the images that are done are no chest radiographs" in told
    assert "2 done, 0 skipped, 1 failed of 3 images" in told


def test_formats_are_those_of_the_sinks() -> None:
    """The options are known before what writes them is loaded."""
    assert tuple(SINKS) == FORMATS


def test_a_job_is_not_begun_twice_by_accident(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only --resume goes on, and only with the same source, model and format."""
    words = ["backfill", str(archive), f"--out={tmp_path / 'out'}", SWIFT]
    assert main([*words, "--limit=3"]) == 1
    assert "5 of 8 images are left" in said(capsys)
    assert main(words) == 2
    assert "--resume goes on with it" in said(capsys)
    for other, told in {
        "--format=csv": "began with the format parquet, not csv",
        "--model=googlenet-int8/1.0.0": "began with the model swift/1.0.0, not googlenet-int8",
        "--option=since=2020-01-01": "began with the options (none), not since=2020-01-01",
    }.items():
        assert main([*words, "--resume", other]) == 2
        assert told in said(capsys)
    assert main(["backfill", str(tmp_path), words[2], "--resume"]) == 2
    assert f"began with the source {archive}, not {tmp_path}" in said(capsys)
    with contextlib.chdir(tmp_path):  # any spelling of the source will do, or none
        assert main(["backfill", "archive/", "--out=out", "--resume", "--limit=1"]) == 1
        assert main(["backfill", "--out=out", "--resume"]) == 0
    assert "7 done, 1 skipped" in said(capsys)
    assert main(["backfill", f"--out={tmp_path / 'new'}", "--resume"]) == 2
    assert "name a SOURCE" in said(capsys)


def test_other_weights_of_the_same_name_do_not_go_on(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the name, and what tells the two apart."""
    store, out = tmp_path / "store", tmp_path / "out"
    folder = store / "swift" / "1.0.0"
    Store(store).add(Store().load("swift/1.0.0"))
    words = ["backfill", f"--out={out}", SWIFT, f"--model-store={store}"]
    assert main([*words, str(archive), "--limit=3"]) == 1
    before = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    model = onnx.load(folder / "model.onnx")
    model.doc_string = "the same network in another file"
    onnx.save(model, folder / "model.onnx")
    after = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"model_sha256": after}))
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert (
        f"the job began with the model swift/1.0.0 (SHA-256 {before[:8]}...), "
        f"not swift/1.0.0 (SHA-256 {after[:8]}...)"
    ) in said(capsys)


def test_an_archive_without_images_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More often than not, it is a wrong path: exit 3, and what was looked at."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".hidden").write_text("")
    words = ["backfill", str(empty), SWIFT]
    assert main([*words, f"--out={tmp_path / 'one'}"]) == 3
    assert f"no image was found in {empty}; left out: 1 hidden" in said(capsys)
    page = (tmp_path / "one" / "certificate.html").read_text()
    assert ">EMPTY<" in page
    assert main([*words, f"--out={tmp_path / 'two'}", "--allow-empty"]) == 0
    certificate = json.loads((tmp_path / "two" / "certificate.json").read_text())
    assert (certificate["valid"], certificate["empty"]) == (True, True)


def test_files_of_another_job_are_told_and_kept(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The certificate cannot vouch for them."""
    out, other = tmp_path / "out", tmp_path / "other"
    for folder in (out, other):
        words = ["backfill", str(archive), f"--out={folder}", SWIFT, "--format=ndjson"]
        assert main([*words, "--chunk=2", "--limit=4"]) == 1
    strangers = out / "results" / "day=2020-01-01"
    strangers.mkdir()
    for path in (other / "results").glob("day=*/part-*"):
        shutil.copy(path, strangers)
    names = {path.name for path in strangers.iterdir()}
    assert len(names) == 2
    assert main(["backfill", f"--out={out}", "--resume"]) == 1
    told = said(capsys)
    for name in names:
        assert f"day=2020-01-01/{name}: no part of this job" in told
    assert {path.name for path in strangers.iterdir()} == names


@pytest.mark.parametrize("form", FORMATS)
def test_results_become_one_sorted_file(
    archive: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all parts and days, in any format; whatever the parts have."""
    out, file = tmp_path / "out", tmp_path / f"views.{form}"
    assert main(["backfill", str(archive), f"--out={out}", SWIFT, "--chunk=2"]) == 0
    assert main(["export", str(out), f"--out={file}"]) == 0
    assert "8 rows in" in said(capsys)
    rows = [row for batch in SINKS[form].decode(file.read_bytes()) for row in batch.to_pylist()]
    locators = [row["locator"] for row in rows]
    assert locators == sorted(locators)
    assert len(locators) == 8
    assert main(["export", str(out), f"--out={tmp_path / 'views.xlsx'}"]) == 2
    assert main(["export", str(tmp_path / "nowhere"), f"--out={file}"]) == 2


def test_what_failed_is_tried_again(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the operator has repaired it."""
    whole = (archive / "frontal-0003.jpg").read_bytes()
    (archive / "frontal-0003.jpg").write_bytes(whole[:2000])
    words = ["backfill", str(archive), f"--out={tmp_path / 'out'}", SWIFT]
    assert main(words) == 0
    assert "6 done, 1 skipped, 1 failed" in said(capsys)
    (archive / "frontal-0003.jpg").write_bytes(whole)
    assert main([*words, "--retry-failed"]) == 0
    text = said(capsys)
    assert "1 images are tried again" in text
    assert "7 done, 1 skipped, 0 failed" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "neither a folder"),
        (["{tmp}", "--model=nothing/1.0.0"], "nothing/1.0.0"),
        (["{tmp}", "--option=color=red"], "color"),
        (["{tmp}", "--option=since"], "NAME=VALUE"),
        (["ftp://x/y"], "no source begins with ftp"),
        (["{tmp}", "--ledger=nonsense"], "ledger cannot be opened"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is done, and with a word on it."""
    words = [word.format(tmp=tmp_path) for word in arguments]
    assert main(["backfill", f"--out={tmp_path / 'out'}", SWIFT, *words]) == 2
    assert message in said(capsys)


@pytest.mark.parametrize("share", ["2", "101%", "-1%", "many"])
def test_a_share_is_a_share(share: str, tmp_path: Path) -> None:
    """Of all outcomes."""
    with pytest.raises(SystemExit):
        main(["backfill", "x", f"--out={tmp_path}", f"--max-errors={share}"])


def test_results_that_are_not_there_are_no_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than a certificate of nothing."""
    assert main(["audit", str(tmp_path / "nowhere"), f"--out={tmp_path}"]) == 2
    assert "no folder of results" in said(capsys)


def test_one_process_works_on_a_folder(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where its ledger is a file; who comes second is told how several can."""
    out = tmp_path / "out"
    out.mkdir()
    with alone(out):
        assert main(["backfill", str(archive), f"--out={out}", SWIFT]) == 2
    assert "another process works on" in said(capsys)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_pauses(tmp_path: Path, how: signal.Signals) -> None:
    """What was begun is finished and written down, and the next run goes on."""
    folder, out = tmp_path / "archive", tmp_path / "out"
    folder.mkdir()
    for number in range(IMAGES):
        file = dicom(radiograph(256, 256) + number % 50, SOPInstanceUID=f"1.2.{number}")
        (folder / f"{number}.dcm").write_bytes(file)
    words = ["backfill", str(folder), f"--out={out}", "--chunk=10"]
    command = [sys.executable, "-m", "service.cli", *words]
    # Shells let what they start in the background ignore Ctrl-C, and that is inherited
    heeding = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(heeding, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        while not list(out.glob("results/day=*/part-*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(how)
        text = process.stderr.read()
    assert process.returncode == 130
    left = re.search(rf"(\d+) of {IMAGES} images are left", text)
    assert left is not None
    assert 0 < int(left[1]) < IMAGES
    rows = sum(batch.num_rows for batch in read_rows(out / "results"))
    assert rows == IMAGES - int(left[1])
    assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/dicom-web", "s3://views/images"])
def test_a_source_that_does_not_answer_is_told_at_once(
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong address is one line with its name, and not fifteen minutes of patience."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    since = ["--option", "since=2024-01-01"]
    start = time.monotonic()
    assert main(["backfill", address, f"--out={tmp_path / 'out'}", SWIFT, *since]) == 2
    assert time.monotonic() - start < 15
    text = said(capsys)
    assert f"error: {address}: " in text
    assert "does not answer" in text


def test_a_source_that_keeps_silent_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections, and never answers."""
    monkeypatch.setattr("service.backfill.sources.retrying.START_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        words = ["backfill", address, f"--out={tmp_path / 'out'}", SWIFT]
        assert main([*words, "--option", "since=2024-01-01"]) == 2
    assert "it did not answer within 0 s" in said(capsys)
