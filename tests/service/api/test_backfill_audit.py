"""The audit log of archive jobs: who asked what of which."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from images import dicom, radiograph

from service.api.auth.keys import new_key
from service.api.settings import Settings

KEY = bytes(range(32))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "Zebra^Quagga"
    folder.mkdir()
    (folder / "one.dcm").write_bytes(dicom(radiograph(128, 128), SOPInstanceUID="1.2.3"))
    return folder


@pytest.fixture
def audited(light: Settings, archive: Path, tmp_path: Path) -> Settings:
    """Settings with jobs, an audit log, and a key."""
    (tmp_path / "secret").write_bytes(KEY)
    key, line = new_key("research", frozenset({"backfill"}))
    (tmp_path / "keys").write_text(line)
    (tmp_path / "key").write_text(key)
    update = {
        "audit_log": tmp_path / "audit",
        "audit_key": tmp_path / "secret",
        "keys": tmp_path / "keys",
        "backfill_folder": tmp_path / "jobs",
        "backfill_sources": (str(archive),),
    }
    return Settings(**(light.model_dump() | update))


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until_done(client: httpx2.Client, job: str) -> None:
    deadline = time.monotonic() + 30
    while client.get(job).json()["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_asked_what_of_a_job_is_recorded(
    start: Callable[..., Any], audited: Settings, archive: Path, tmp_path: Path
) -> None:
    """Once each, before it is done, also where it then cannot be; of the source there is a hash."""
    headers = {"authorization": f"Bearer {(tmp_path / 'key').read_text()}", "x-request-id": "r-1"}
    with start(audited) as service, service.client() as client:
        client.headers.update(headers)
        response = client.post("/v1/backfills", json={"source": str(archive)})
        job = response.headers["location"]
        until_done(client, job)
        assert client.get(f"{job}/results").status_code == 200
        for report in ("certificate", "header-audit", "worklist"):
            assert client.get(f"{job}/{report}").status_code == 200
        for what in ("pause", "resume", "cancel", "retry-failed"):
            client.post(f"{job}/{what}")
        client.get("/v1/backfills")
        unknown = f"/v1/backfills/{'0' * 32}"
        assert client.get(f"{unknown}/results").status_code == 404
        assert client.post(f"{unknown}/cancel").status_code == 404
        del client.headers["authorization"]
        assert client.get(f"{job}/results").status_code == 401
    create, *found, denied = entries(tmp_path / "audit")
    source = hmac.new(KEY, str(archive).encode(), hashlib.sha256).hexdigest()
    assert create == {
        "time": create["time"],
        "event": "backfill",
        "request_id": "r-1",
        "client": "research",
        "address": "127.0.0.1",
        "action": "create",
        "source_hmac": source,
    }
    reports = ["results", "certificate", "header-audit", "worklist"]
    actions = ["created", *reports, "pause", "resume", "cancel", "retry-failed"]
    assert [each["action"] for each in found] == actions
    identifier = job.rpartition("/")[2]
    assert {(each["client"], each["job"]) for each in found} == {("research", identifier)}
    assert (denied["event"], denied["code"], denied["client"]) == (
        "denied", "not_authenticated", None
    )  # fmt: skip
    assert "Zebra" not in (tmp_path / "audit").read_text()


def test_what_cannot_be_recorded_is_not_done(
    start: Callable[..., Any], audited: Settings, archive: Path
) -> None:
    """No job is made, none is changed, and no result is given."""
    open_to_all = audited.model_copy(update={"keys": None, "audit_log": None, "audit_key": None})
    with start(open_to_all) as service, service.client() as client:
        response = client.post("/v1/backfills", json={"source": str(archive)})
        job = response.headers["location"]
        until_done(client, job)
    full = audited.model_copy(update={"keys": None, "audit_log": Path("/dev/full")})
    with start(full) as service, service.client() as client:
        before = client.get(job).json()
        asked = [
            client.post("/v1/backfills", json={"source": str(archive)}),
            *(client.get(f"{job}/{what}") for what in ("results", "certificate")),
            *(client.post(f"{job}/{what}") for what in ("resume", "cancel", "retry-failed")),
        ]
        assert {(each.status_code, each.json()["code"]) for each in asked} == {
            (503, "audit_failed")
        }
        assert client.get("/v1/backfills").json()["backfills"] == [before | {"codes": None}]
