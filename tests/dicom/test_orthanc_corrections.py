"""Corrected copies in a real Orthanc: made once, and taken back."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pydicom
import pytest
from archive_servers import ORTHANCS, Orthanc, orthanc
from images import dicom, radiograph
from pydicom import uid
from pydicom.dataset import Dataset
from worklists import SERIES, STUDY, decided, finished

from service.cli import main
from service.dicom.orthanc_corrections import copy_uid

PLAIN, COMPRESSED, RIGHT, ABSENT = (f"{SERIES}.{number}" for number in range(1, 5))
FRONTAL, LATERAL = "399033003", "399067008"


def item(value: str, **others: object) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", "a code"
    for keyword, each in others.items():
        setattr(code, keyword, each)
    return code


def stored(sop: str, syntax: str, **attributes: object) -> bytes:
    return dicom(
        radiograph(64, 56),
        syntax,
        SOPInstanceUID=sop,
        MediaStorageSOPInstanceUID=sop,
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=SERIES,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jörg",
        ImageType=["ORIGINAL", "PRIMARY", ""],
        **attributes,
    )


@pytest.fixture(scope="module", params=ORTHANCS)
def pacs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orthanc]:
    """Three radiographs; the backfill that made the worklist saw a fourth."""
    with orthanc(tmp_path_factory.mktemp("orthanc"), request.param) as server:
        modifiers = [item("399233009")]
        server.store(
            [
                stored(PLAIN, uid.ImplicitVRLittleEndian, ViewPosition="LL"),
                stored(
                    COMPRESSED,
                    uid.JPEG2000Lossless,
                    ViewPosition="PA",
                    ViewCodeSequence=[item("399348003", ViewModifierCodeSequence=modifiers)],
                ),
                stored(RIGHT, uid.ExplicitVRLittleEndian, ViewPosition="PA"),
            ]
        )
        yield server
        server.stop()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command without what it does."""
    wrong = {"view_position": "LL", "view_position_agrees": False}
    run = finished(tmp_path / "run", dict.fromkeys((PLAIN, COMPRESSED, RIGHT, ABSENT), wrong))
    decisions = {PLAIN: "frontal", COMPRESSED: "lateral", RIGHT: "frontal", ABSENT: "frontal"}
    accepted = decided(tmp_path / "accepted.csv", decisions)
    return ["corrections", str(run), "--accepted", str(accepted)]


def ask(pacs: Orthanc, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(f"{pacs.root}{path}", body, timeout=30) as answer:
        return bytes(answer.read())


def held(pacs: Orthanc) -> dict[str, bytes]:
    """The files of an Orthanc, by SOP Instance UID."""
    files = [ask(pacs, f"/instances/{each}/file") for each in json.loads(ask(pacs, "/instances"))]
    return {pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID: each for each in files}


def log_in(words: list[str]) -> Path:
    return Path(words[1]) / "corrections" / "orthanc-log.ndjson"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def nothing_is_left(pacs: Orthanc) -> Iterator[None]:
    """Each test takes back what it made, so the sources alone are there, unchanged."""
    before = held(pacs)
    yield
    assert held(pacs) == before


def test_a_dry_run_changes_nothing(pacs, words, capsys) -> None:
    """It says what would be done, and writes the calls."""
    before = held(pacs)
    assert main([*words, "--apply", pacs.root]) == 1
    text = said(capsys)
    assert f"{ABSENT}: Orthanc does not have this instance" in text
    assert "2 to be corrected, 1 refused, 1 unchanged" in text
    assert held(pacs) == before
    assert not log_in(words).exists()
    calls = (log_in(words).parent / "orthanc.ndjson").read_text().splitlines()
    replaced = [json.loads(each)["Replace"] for each in calls]
    assert {each["SOPInstanceUID"] for each in replaced} == {
        copy_uid(PLAIN, "frontal"),
        copy_uid(COMPRESSED, "lateral"),
    }


def test_copies_are_made_once_and_taken_back(pacs, words, capsys) -> None:
    """The sources stay as they are, byte for byte; the copies differ in what was corrected only."""
    before = held(pacs)
    assert main([*words, "--apply", pacs.root, "--yes"]) == 1
    assert "2 corrected, 1 refused, 1 unchanged" in said(capsys)
    after = held(pacs)
    assert before.items() < after.items()
    assert len(after) == len(before) + 2
    plain = copied(before[PLAIN], after[copy_uid(PLAIN, "frontal")])
    assert plain.ViewPosition is None or not plain.ViewPosition
    assert [code.CodeValue for code in plain.ViewCodeSequence] == [FRONTAL]
    compressed = copied(before[COMPRESSED], after[copy_uid(COMPRESSED, "lateral")])
    (code,) = compressed.ViewCodeSequence
    assert code.CodeValue == LATERAL
    assert [each.CodeValue for each in code.ViewModifierCodeSequence] == ["399233009"]
    (original,) = compressed.OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert original.ViewPosition == "PA"
    assert original.ViewCodeSequence[0].CodeValue == "399348003"

    assert main([*words, "--apply", pacs.root, "--yes"]) == 1
    assert "1 refused, 3 unchanged" in said(capsys)
    assert held(pacs) == after

    undo = ["corrections", "--undo", str(log_in(words))]
    assert main(undo) == 0
    assert "2 to be undone" in said(capsys)
    assert held(pacs) == after
    assert main([*undo, "--yes"]) == 0
    assert "2 undone" in said(capsys)
    assert held(pacs) == before
    assert main([*undo, "--yes"]) == 0
    assert "no instances" in said(capsys)


def copied(source: bytes, copy: bytes) -> Dataset:
    """The copy, which says what it is, and has the source's other attributes and pixels."""
    old, new = (pydicom.dcmread(io.BytesIO(each)) for each in (source, copy))
    assert new.file_meta.TransferSyntaxUID == old.file_meta.TransferSyntaxUID
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert new.ImageType == ["DERIVED", "PRIMARY", ""]
    (reference,) = new.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
    changed = {element.keyword for element in new if element != old.get(element.tag)}
    assert changed - {"ViewCodeSequence", "ViewPosition"} == {
        "SOPInstanceUID",
        "ImageType",
        "SourceImageSequence",
        "DerivationDescription",
        "OriginalAttributesSequence",
    }
    assert {element.keyword for element in old} <= {element.keyword for element in new}
    return new


def test_another_decision_needs_the_first_to_be_undone(pacs, words, tmp_path, capsys) -> None:
    """Otherwise two copies would contradict each other."""
    main([*words, "--apply", pacs.root, "--yes"])
    decided(tmp_path / "accepted.csv", {PLAIN: "lateral"})
    said(capsys)
    assert main([*words, "--apply", pacs.root, "--yes"]) == 1
    assert f"{PLAIN}: a copy says frontal: undo that correction first" in said(capsys)
    assert main(["corrections", "--undo", str(log_in(words)), "--yes"]) == 0


def test_the_last_copy_is_never_deleted(pacs, words, capsys) -> None:
    """If the source is gone, undoing would lose the image."""
    source = held(pacs)[PLAIN]
    main([*words, "--apply", pacs.root, "--yes"])
    (found,) = json.loads(ask(pacs, "/tools/lookup", PLAIN.encode()))
    request = urllib.request.Request(f"{pacs.root}{found['Path']}", method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()
    said(capsys)
    undo = ["corrections", "--undo", str(log_in(words)), "--yes"]
    assert main(undo) == 1
    text = said(capsys)
    assert f"{PLAIN}: the source is gone: its copy is the last one, and is kept" in text
    assert copy_uid(PLAIN, "frontal") in held(pacs)
    pacs.store([source])
    assert main(undo) == 0


@contextmanager
def losing_answers(target: str) -> Iterator[str]:
    """Passes requests to an Orthanc; the answer to a modification is lost, after it was made."""
    host, port = target.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client, socket.create_connection((host, int(port))) as server:
                    pass_on(client, server)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def pass_on(client: socket.socket, server: socket.socket) -> None:
    """One request after the other, until one side ends."""
    while request := whole(client):
        server.sendall(request)
        answer = whole(server)
        if b"bulk-modify" in request:
            return
        client.sendall(answer)


def whole(side: socket.socket) -> bytes:
    """A message with its body; empty at the end of a connection."""
    data = b""
    while piece := side.recv(65536):
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return data
    return b""


def test_a_lost_answer_loses_nothing(pacs, words, capsys) -> None:
    """The log has the copy before it is made, so the next run finds it, and undo deletes it."""
    with losing_answers(pacs.root) as url:
        assert main([*words, "--apply", url, "--yes"]) == 2
        assert f"{url} does not answer" in said(capsys)
        assert len(held(pacs)) == 4
        assert main([*words, "--apply", pacs.root, "--yes"]) == 1
        assert "1 corrected, 1 refused, 2 unchanged" in said(capsys)
        assert main(["corrections", "--undo", str(log_in(words)), "--yes"]) == 0
        assert "2 undone" in said(capsys)


def test_a_log_that_a_crash_cut_off_is_continued(pacs, words, capsys) -> None:
    """The line without an end was written before a call that was never made."""
    main([*words, "--apply", pacs.root, "--yes"])
    log = log_in(words)
    whole_log = log.read_bytes()
    log.write_bytes(whole_log + b'{"time": "2026-01')
    assert main(["corrections", "--undo", str(log)]) == 0
    assert log.read_bytes() == whole_log + b'{"time": "2026-01'
    assert main(["corrections", "--undo", str(log), "--yes"]) == 0
    lines = log.read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begin", "end"] * 4
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["no log\n", "no log", '{"time": 1}\n', "[1]\n"])
def test_another_file_is_no_log(text: str, words, tmp_path, pacs, capsys) -> None:
    """It is neither used nor changed."""
    other = tmp_path / "other"
    other.write_text(text)
    assert main(["corrections", "--undo", str(other), "--yes"]) == 2
    assert "line 1: no entry of a log" in said(capsys)
    assert main([*words, "--apply", pacs.root, "--yes", "--log", str(other)]) == 2
    assert other.read_text() == text


def test_what_is_no_orthanc_is_said(words, tmp_path, capsys) -> None:
    """Before anything is logged."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main([*words, "--apply", url, "--yes"]) == 2
    assert f"{url} does not answer (ConnectError)" in said(capsys)
    for wrong in ("127.0.0.1:8042", "http://user:secret@127.0.0.1:8042", "http://h/?a=b"):
        assert main([*words, "--apply", wrong]) == 2
        text = said(capsys)
        assert "address of an Orthanc" in text
        assert "secret@" not in text
    assert not log_in(words).exists()
    assert main(["corrections", "--undo", str(tmp_path / "none")]) == 2
    assert "does not exist" in said(capsys)


def test_credentials_are_those_of_a_source(
    words, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file or the environment, and in no message."""
    with orthanc(
        tmp_path, AuthenticationEnabled=True, RegisteredUsers={"archivist": "secret"}
    ) as locked:
        assert main([*words, "--apply", locked.root]) == 2
        assert f"{locked.root} does not let us in: 401" in said(capsys)
        monkeypatch.setenv("CXRVIEW_DICOMWEB_USER", "archivist")
        monkeypatch.setenv("CXRVIEW_DICOMWEB_PASSWORD", "secret")
        assert main([*words, "--apply", locked.root]) == 1
        assert "4 refused" in said(capsys)
        monkeypatch.setenv("CXRVIEW_DICOMWEB_TOKEN_FILE", str(tmp_path / "none"))
        assert main([*words, "--apply", locked.root]) == 2
        assert "CXRVIEW_DICOMWEB_TOKEN_FILE cannot be read" in said(capsys)
