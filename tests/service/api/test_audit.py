"""The audit log: every answer and every refusal to let in, and nothing of a patient."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA
from images import dicom, radiograph

from service.api.audit import Asker, Audit, AuditError
from service.api.auth.keys import new_key
from service.api.settings import Settings
from service.cli import main

JPEG = (DATA / "frontal-0003.jpg").read_bytes()
KEY = bytes(range(32))
UID = "1.2.826.0.1.3680043.8.498.4711"
PATIENT = {"PatientName": "Zebra^Quagga", "PatientID": "ZQ4711", "SOPInstanceUID": UID}


@pytest.fixture
def audited(light: Settings, tmp_path: Path) -> Settings:
    """Settings with an audit log and a key of each kind."""
    (tmp_path / "secret").write_bytes(KEY)
    key, line = new_key("pacs", frozenset({"classify", "backfill"}))
    (tmp_path / "keys").write_text(line)
    (tmp_path / "key").write_text(key)
    update = {"audit_log": tmp_path / "audit", "audit_key": tmp_path / "secret"}
    return light.model_copy(update=update | {"keys": tmp_path / "keys"})


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_who_had_which_answer_is_recorded(start, audited: Settings, tmp_path: Path) -> None:
    """An entry an image, of both endpoints, good or bad; of a patient there is a keyed hash."""
    file = dicom(radiograph(), **PATIENT)
    headers = {"authorization": f"Bearer {(tmp_path / 'key').read_text()}", "x-request-id": "r-1"}
    before = datetime.now(UTC)
    with start(audited) as service, service.client() as client:
        answer = client.post("/v1/classify", content=file, headers=headers).json()
        client.post("/v1/classify", content=b"Zebra^Quagga", headers=headers)
        files = [("files", ("Zebra.dcm", file)), ("files", ("Quagga.jpg", JPEG[:-900]))]
        client.post("/v1/classify/batch", files=files, headers=headers)
        client.post("/v1/classify", content=file)
        client.get("/v1/model", headers=headers)
        sha256 = service.runtime.card.model_sha256
    path = tmp_path / "audit"
    found = entries(path)
    uid = hmac.new(KEY, UID.encode(), hashlib.sha256).hexdigest()
    one, bad, *batch, denied = found
    assert one == {
        "time": one["time"],
        "event": "classified",
        "request_id": "r-1",
        "client": "pacs",
        "address": "127.0.0.1",
        "sop_instance_uid_hmac": uid,
        "view": answer["view"],
        "pfi": answer["pfi"],
        "chest": None,
        "review": answer["review"],
        "model": "mean/1.0.0",
        "model_sha256": sha256,
    }
    assert before.timestamp() - 0.001 <= datetime.fromisoformat(one["time"]).timestamp()
    assert (bad["event"], bad["code"]) == ("failed", "unrecognised_format")
    assert sorted(each["event"] for each in batch) == ["classified", "failed"]
    assert (denied["event"], denied["code"]) == ("denied", "not_authenticated")
    assert denied["client"] is None
    assert not [word for word in ("Zebra", "Quagga", "ZQ4711", UID) if word in path.read_text()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_answer_that_cannot_be_recorded_is_not_given(start, audited: Settings) -> None:
    """503, for one image and within a batch; cards, of which nothing is recorded, are given."""
    full = audited.model_copy(update={"audit_log": Path("/dev/full"), "keys": None})
    with start(full) as service, service.client() as client:
        one = client.post("/v1/classify", content=JPEG)
        assert (one.status_code, one.json()["code"]) == (503, "audit_failed")
        line = client.post("/v1/classify/batch", files={"files": ("a.jpg", JPEG)}).json()
        assert line["error"]["code"] == "audit_failed"
        assert client.post("/v1/classify", content=b"x").status_code == 415
        assert client.get("/v1/model").status_code == 200


def test_an_old_log_can_be_moved_away(tmp_path: Path) -> None:
    """Entries go on in a new file once they are told; where none can be had, in the old."""
    log, old = tmp_path / "log", tmp_path / "old"
    audit = Audit(log, KEY)
    audit.failed(Asker("1", "", ""), "corrupt_image", 422)
    log.rename(old)
    audit.failed(Asker("2", "", ""), "corrupt_image", 422)
    audit.reopen()
    audit.failed(Asker("3", "", ""), "corrupt_image", 422)
    log.rename(tmp_path / "older")
    log.mkdir()
    audit.reopen()
    audit.failed(Asker("4", "", ""), "corrupt_image", 422)
    assert [each["request_id"] for each in entries(old)] == ["1", "2"]
    assert [each["request_id"] for each in entries(tmp_path / "older")] == ["3", "4"]


def test_two_processes_may_write_to_one_log(tmp_path: Path) -> None:
    """Neither overwrites the other's lines."""
    first, second = (Audit(tmp_path / "log", KEY) for _ in range(2))
    for number in range(100):
        (first if number % 2 else second).failed(Asker(str(number), "", ""), "corrupt_image", 422)
    assert len(entries(tmp_path / "log")) == 100


def test_it_can_go_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """For those who collect that."""
    audit = Audit(Path("-"), KEY)
    audit.failed(Asker("1", "pacs", ""), "not_permitted", 403)
    audit.reopen()
    audit.failed(Asker("2", "pacs", ""), "not_permitted", 403)
    lines = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["denied", "denied"]


@pytest.mark.parametrize(
    ("secret", "folder", "message"),
    [
        (b"short", "", "must have 32 bytes"),
        (None, "", "key of the audit log cannot be read"),
        (KEY, "nowhere/", "cannot be opened"),
    ],
)
def test_no_log_is_a_failed_start(
    secret: bytes | None,
    folder: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rather than a service that records nothing."""
    if secret is not None:
        (tmp_path / "secret").write_bytes(secret)
    monkeypatch.setenv("CXRVIEW_AUDIT_LOG", f"{tmp_path}/{folder}audit")
    monkeypatch.setenv("CXRVIEW_AUDIT_KEY", f"{tmp_path}/secret")
    assert main(["serve"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    monkeypatch.delenv("CXRVIEW_AUDIT_KEY")
    assert main(["serve"]) == 2
    assert "go together" in " ".join(capsys.readouterr().err.split())


def test_a_log_only_grows(tmp_path: Path) -> None:
    """What is there when the service starts stays."""
    (tmp_path / "log").write_text("before\n")
    Audit(tmp_path / "log", KEY).failed(Asker("1", "", ""), "corrupt_image", 422)
    assert (tmp_path / "log").read_text().startswith("before\n{")
    with pytest.raises(AuditError, match="No space"):
        Audit(Path("/dev/full"), KEY)._write("failed", Asker("1", "", ""), {})
