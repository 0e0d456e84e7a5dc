"""The audit log on disks that are full, in processes that are killed: no record is ever torn."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from conftest import DATA
from disks import disk, fill
from live import serving

from service.api.audit import INCOMPLETE, Asker, Audit, AuditError

JPEG = (DATA / "frontal-0003.jpg").read_bytes()
KEY = bytes(range(32))
MARK = INCOMPLETE.decode().rstrip()


@contextmanager
def disk_space(path: Path, left: int) -> Iterator[None]:
    """Let files of this process grow to what this one has, and so many bytes more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.stat().st_size if path.exists() else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def record(audit: Audit, name: str) -> bool:
    """Whether a record could be written."""
    try:
        audit.asked("backfill", Asker(name, "", ""), {"job": "0" * 32})
    except AuditError:
        return False
    return True


def whole(path: Path) -> list[str]:
    """Identifiers of all records; every other line is marked as incomplete."""
    text = path.read_text()
    assert text.endswith("\n")
    lines = [line for line in text.splitlines() if not line.endswith(MARK)]
    return [json.loads(line)["request_id"] for line in lines]


@pytest.mark.parametrize("restarted", [False, True], ids=["goes on", "restarted"])
def test_a_record_that_does_not_fit_is_ended_and_marked(tmp_path: Path, restarted: bool) -> None:
    """Wherever it is cut, before its first byte or its last: the next stands on its own line."""
    path = tmp_path / "log"
    audit = Audit(path, KEY)
    record(audit, "first")
    length = path.stat().st_size
    expected, marked = ["first"], 0
    for left in range(length + 1):
        name = f"{left:05}"
        with disk_space(path, left):
            fitted = record(audit, name)
        assert fitted == (left == length)
        marked += 0 < left < length
        if restarted:
            audit = Audit(path, KEY)
        assert record(audit, "again")
        expected += [name, "again"] if fitted else ["again"]
        assert whole(path) == expected
    assert path.read_text().count(MARK) == marked


def test_a_mark_that_does_not_fit_either_is_tried_again(tmp_path: Path) -> None:
    """However often the disk is full, one partial line stays, and is ended when space is free."""
    path = tmp_path / "log"
    audit = Audit(path, KEY)
    for left in range(1, 8):
        with disk_space(path, left):
            assert not record(audit, "torn")
    assert record(audit, "whole")
    assert whole(path) == ["whole"]
    assert len(path.read_text().splitlines()) == 2


def test_a_full_disk_tears_nothing(tmp_path: Path) -> None:
    """A real one, of 64 kB, that is freed and filled again."""
    with disk(tmp_path / "disk", 64):
        path = tmp_path / "disk" / "log"
        audit, written = Audit(path, KEY), []
        for turn in range(3):
            filler = fill(tmp_path / "disk", 8192)
            for number in range(100):
                written += [name] if record(audit, name := f"{turn}-{number}") else []
            assert not record(audit, "full")
            filler.unlink()
        assert record(audit, "free")
        assert whole(path) == [*written, "free"]
        assert "full" not in written


WRITER = """
import sys
from pathlib import Path
from service.api.audit import Asker, Audit, AuditError
audit, acknowledged = Audit(Path(sys.argv[1]), bytes(32)), open(sys.argv[2], "w", buffering=1)
print("ready", flush=True)
full = False
for number in range(10**9):
    name = f"{sys.argv[3]}-{number}"
    try:
        audit.asked("backfill", Asker(name, "", ""), {"job": "0" * (number % 2000)})
    except AuditError:
        if not full:
            print("full", flush=True)
        full = True
        continue
    acknowledged.write(name + "\\n")
"""


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    """Four processes write to one log on a disk that runs full, and are killed meanwhile."""
    with disk(tmp_path / "disk", 4096):
        path = tmp_path / "disk" / "log"
        filler = fill(tmp_path / "disk", 1_000_000)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), str(tmp_path / f"{at}"), f"{at}"],
                stdout=subprocess.PIPE,
            )
            for at in range(4)
        ]
        try:
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
            writers[0].kill()  # while it can still write
            for writer in writers[1:]:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"full\n"
        finally:
            for writer in writers:
                writer.kill()
                writer.communicate()
        filler.unlink()
        assert record(Audit(path, KEY), "afterwards")
        found = whole(path)
        acknowledged = [
            line
            for at in range(4)
            for line in (tmp_path / f"{at}").read_text().splitlines(keepends=True)
            if line.endswith("\n")  # that file, too, may end in the middle
        ]
        assert len(acknowledged) > 100
        assert {line.rstrip() for line in acknowledged} <= set(found)
        assert len(found) == len(set(found))
        assert found[-1] == "afterwards"


def test_records_of_several_threads_keep_apart(tmp_path: Path) -> None:
    """Even if, again and again, the disk has space for half a record only."""
    path = tmp_path / "log"
    audits = [Audit(path, KEY) for _ in range(2)]
    written: list[str] = []

    def write(at: int) -> None:
        names = (f"{at}-{number}" for number in range(50))
        written.extend(name for name in names if record(audits[at % 2], name))

    threads = [threading.Thread(target=write, args=[at]) for at in range(4)]
    with disk_space(path, 0):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            limit = path.stat().st_size + 71
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert record(audits[0], "last")
    assert sorted(whole(path)) == sorted([*written, "last"])


def test_a_log_that_is_moved_away_is_ended_first(tmp_path: Path) -> None:
    """The half line is marked in the old file; the new one begins with a whole record."""
    path, old = tmp_path / "log", tmp_path / "old"
    audit = Audit(path, KEY)
    assert record(audit, "1")
    with disk_space(path, 20):
        assert not record(audit, "2")
    path.rename(old)
    audit.reopen()
    assert record(audit, "3")
    assert whole(old) == ["1"]
    assert old.read_text().count(MARK) == 1
    assert whole(path) == ["3"]
    with path.open("ab") as file:
        file.write(b'{"time": "2026')
    audit.reopen()
    assert record(audit, "4")
    assert whole(path) == ["3", "4"]


def test_an_old_log_that_stays_full_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its last line cannot be marked; records go on in the new file."""
    with disk(tmp_path / "disk", 16):
        path = tmp_path / "disk" / "log"
        path.symlink_to(tmp_path / "disk" / "old")
        audit = Audit(path, KEY)
        while record(audit, "1"):
            pass
        path.unlink()
        path.symlink_to(tmp_path / "new")
        audit.reopen()
        assert "is incomplete" in caplog.text
        assert record(audit, "2")
        assert whole(tmp_path / "new") == ["2"]


def test_standard_output_that_takes_a_part_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that is nearly full: what was written of a record is marked before the next."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reader, "rb", buffering=0) as pipe, os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        audit = Audit(Path("-"), KEY)
        with pytest.raises(AuditError):  # more than is written in one piece
            audit.asked("backfill", Asker("long", "", ""), {"job": "0" * 2 * size})
        first = pipe.read(2 * size)
        assert record(audit, "next")
        (tmp_path / "log").write_bytes(first + pipe.read(2 * size))
    assert first
    assert whole(tmp_path / "log") == ["next"]
    assert (tmp_path / "log").read_text().count(MARK) == 1


def test_a_pipe_that_is_not_read_stops_no_request(tmp_path: Path) -> None:
    """It is full after a while, and then an error at once."""
    os.mkfifo(tmp_path / "log")
    audit = Audit(tmp_path / "log", KEY)
    written = 0
    while record(audit, "1"):
        written += 1
        assert written < 100_000
    assert written > 0


def test_a_service_goes_on_once_disk_space_is_free(tmp_path: Path) -> None:
    """While its log is full, nothing is answered; then all is, and each record can be read."""
    (tmp_path / "secret").write_bytes(KEY)
    path = tmp_path / "audit"
    settings = {"audit_log": str(path), "audit_key": str(tmp_path / "secret")}
    with (
        serving(tmp_path / "log", model="swift/1.0.0", **settings) as live,
        httpx2.Client(base_url=live.url) as client,
    ):

        def sent(name: str) -> tuple[int, str]:
            headers = {"x-request-id": name}
            answer = client.post("/v1/classify", content=JPEG, headers=headers)
            return answer.status_code, answer.json().get("code", "")

        assert sent("1") == (200, "")
        limit = path.stat().st_size * 3 // 2
        unlimited = resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        assert [sent("torn") for _ in range(3)] == [(503, "audit_failed")] * 3
        resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert [sent(name) for name in "23"] == [(200, "")] * 2
        assert live.end() == 0
    assert whole(path) == ["1", "2", "3"]
    assert path.read_text().count(MARK) == 1
