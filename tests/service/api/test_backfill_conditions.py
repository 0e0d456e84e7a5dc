"""Jobs of the service when the disk is full, the ledger locked, or the model gone."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from disks import disk, fill
from images import dicom, radiograph
from live import serving
from small_archives import write_archive

from service.api.settings import Settings

IMAGES = 40
Outcomes = Counter[tuple[Any, ...]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Different images, and two files that cannot be classified."""
    return write_archive(tmp_path_factory.mktemp("archive"), IMAGES)


@pytest.fixture
def settings(light: Settings, archive: Path, tmp_path: Path) -> Settings:
    """A service that may read the archive, with jobs in a folder that can be made a disk."""
    update = {"backfill_folder": tmp_path / "jobs", "backfill_sources": (str(archive),)}
    return Settings(**(light.model_dump() | update))


def until(client: httpx2.Client, job: str, *states: str) -> dict[str, Any]:
    """The job, as soon as it is in one of these states."""
    deadline = time.monotonic() + 60
    while (found := client.get(job).json())["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def begun(client: httpx2.Client, archive: Path) -> str:
    response = client.post("/v1/backfills", json={"source": str(archive)})
    assert response.status_code == 202, response.text
    return str(response.headers["location"])


def ended(client: httpx2.Client, job: str) -> None:
    """It is done, certified, and each image has one outcome at its first try."""
    until(client, job, "done")
    assert client.get(f"{job}/certificate").json()["valid"]
    rows = [json.loads(line) for line in client.get(f"{job}/results").text.splitlines()]
    assert len({row["locator"] for row in rows}) == len(rows)
    found = Counter((row["outcome"], row["attempts"]) for row in rows)
    assert found == {("done", 1): IMAGES, ("skipped", 1): 1, ("failed", 1): 1}


def test_a_full_disk_stops_a_job(
    start: Callable[..., Any], settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """The reason says so; resumed too early, it stops again; with free space it finishes.

    Where not even what was asked for can be written down, that is the answer.
    """
    with disk(tmp_path / "jobs", 6000), start(settings) as service, service.client() as client:
        ended(client, begun(client, archive))
        filler = fill(tmp_path / "jobs", 40960)
        job = begun(client, archive)
        for _ in range(3):
            found = until(client, job, "stopped")
            assert found["reason"].startswith("the disk is full: ")
            resumed = client.post(f"{job}/resume")
            if resumed.status_code != 200:
                assert resumed.json()["code"] == "ledger_away"
                assert resumed.json()["detail"].startswith("the disk is full: ")
        until(client, job, "stopped")
        filler.unlink()
        assert client.post("/v1/classify", content=dicom(radiograph())).status_code == 200
        assert client.post(f"{job}/resume").status_code == 200
        ended(client, job)


def test_a_locked_ledger_is_said(
    start: Callable[..., Any], settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """No job is made then, and none forgotten: what there is can be read all the while."""
    file = tmp_path / "ledger.sqlite"
    url = f"sqlite:///{file}?timeout=0.1"
    update = settings.model_copy(update={"backfill_ledger": url})
    with start(update) as service, service.client() as client:
        job = begun(client, archive)
        ended(client, job)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for path in ("/v1/backfills", f"{job}/retry-failed"):
            response = client.post(path, json={"source": str(archive)})
            assert (response.status_code, response.json()["code"]) == (503, "ledger_away")
            assert "locked by another process" in response.json()["detail"]
        assert client.get(job).json()["state"] == "done"
        assert len(client.get("/v1/backfills").json()["backfills"]) == 1
        other.close()
        ended(client, begun(client, archive))


def test_a_folder_that_takes_no_results(
    start: Callable[..., Any], settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """The job stops, and says which; when that is mended it goes on."""
    with start(settings) as service, service.client() as client:
        job = begun(client, archive)
        ended(client, job)
        folder = tmp_path / "jobs" / job.rpartition("/")[2]
        (folder / "audit").rename(tmp_path / "moved")
        (folder / "audit").write_text("in the way")
        assert client.post(f"{job}/retry-failed").status_code == 200
        reason = until(client, job, "stopped")["reason"]
        assert str(folder / "audit") in reason
        (folder / "audit").unlink()
        assert client.post(f"{job}/resume").status_code == 200
        assert until(client, job, "done")["counts"]["open"] == 0
        assert client.get(f"{job}/certificate").json()["valid"]


def test_a_model_that_is_gone_starts_nothing(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """The service does not start, the job waits, and goes on when the model is back."""
    store = tmp_path / "store"
    shutil.copytree(settings.model_store, store)
    options = {
        "model": settings.model,
        "model_store": str(store),
        "backfill_folder": str(settings.backfill_folder),
        "backfill_sources": str(archive),
    }
    with (
        serving(tmp_path / "log", **options) as live,
        httpx2.Client(base_url=f"http://127.0.0.1:{live.port}", timeout=30) as client,
    ):
        job = begun(client, archive)
    version = store / settings.model
    version.rename(tmp_path / "gone")
    with (
        pytest.raises(AssertionError, match=settings.model),
        serving(tmp_path / "other", **options),
    ):
        pass
    (tmp_path / "gone").rename(version)
    with (
        serving(tmp_path / "last", **options) as live,
        httpx2.Client(base_url=f"http://127.0.0.1:{live.port}", timeout=30) as client,
    ):
        until(client, job, "done")
        assert client.get(f"{job}/certificate").json()["outcomes"]["done"] == IMAGES
