"""Jobs of the service that read from real archives."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from archive_servers import instances, orthanc, seaweed
from images import dicom, radiograph
from live import serving

from service.api.settings import Settings

IMAGES = 30
QUICK = {"first_delay_seconds": 0.05, "max_delay_seconds": 0.2, "patience_seconds": 1}
PERIOD = {"since": "2024-05-01", "until": "2024-05-01", "requests_per_second": 200}
WORKING = ("waiting", "running")


@contextmanager
def service_of(sources: str, light: Settings, folder: Path) -> Iterator[httpx2.Client]:
    """The command `cxrview serve` with jobs from these sources, and a client of it."""
    settings = {
        "model": "mean/1.0.0",
        "model_store": str(light.model_store),
        "backfill_folder": str(folder / "jobs"),
        "backfill_sources": sources,
    }
    with (
        serving(folder / "log", **settings) as live,
        httpx2.Client(base_url=live.url, timeout=30) as client,
    ):
        yield client


def begun(client: httpx2.Client, source: str, options: dict[str, Any]) -> str:
    """The path of a new job."""
    body = {"source": source, "options": QUICK | options}
    response = client.post("/v1/backfills", json=body)
    assert response.status_code == 202, response.text
    assert response.json()["state"] in WORKING
    return str(response.headers["location"])


def ended(client: httpx2.Client, job: str) -> dict[str, Any]:
    """The job, as soon as nothing more happens to it."""
    deadline = time.monotonic() + 60
    while (found := client.get(job).json())["state"] in WORKING:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return dict(found)


def rows(client: httpx2.Client, job: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get(f"{job}/results").text.splitlines()]


def refused(client: httpx2.Client, source: str) -> bool:
    response = client.post("/v1/backfills", json={"source": source, "options": PERIOD})
    return response.json()["code"] == "source_not_allowed"


def test_a_job_from_a_pacs(
    light: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops where the PACS is away, says so, and goes on when it is told to."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    images = instances(IMAGES)
    with orthanc(tmp_path) as pacs, service_of(pacs.address, light, tmp_path) as client:
        assert refused(client, pacs.root)
        pacs.store(images.values())
        pacs.stop()
        job = begun(client, pacs.address, PERIOD)
        found = ended(client, job)
        assert (found["state"], found["counts"]["found"]) == ("stopped", 0)
        assert "does not answer" in found["reason"]
        pacs.start()
        assert client.post(f"{job}/resume").json()["state"] in WORKING
        found = ended(client, job)
        assert (found["state"], found["reason"]) == ("done", None)
        assert found["counts"] == {
            "found": IMAGES, "done": IMAGES, "skipped": 0, "failed": 0, "open": 0
        }  # fmt: skip
        assert sorted(row["locator"] for row in rows(client, job)) == sorted(images)
        certificate = client.get(f"{job}/certificate").json()
        assert (certificate["valid"], certificate["found"]) == (True, IMAGES)


def test_a_job_from_a_bucket(
    light: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged there is an outcome, and nothing beside the prefix is read."""
    pixels = radiograph(128, 128)
    good = {f"chest/{n}.dcm": dicom(pixels + n, SOPInstanceUID=f"1.2.{n}") for n in range(IMAGES)}
    cut = {f"chest/cut {n}.dcm": good[f"chest/{n}.dcm"][:9000] for n in range(4)}
    others = {"chest/notes.txt": b"no image", "other/x.dcm": good["chest/0.dcm"]}
    with seaweed(tmp_path, "backfill", "secret") as store:
        store.fill("archive", good | cut | others)
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        with service_of("s3://archive/chest", light, tmp_path) as client:
            assert refused(client, "s3://archive/other")
            job = begun(client, "s3://archive/chest", {})
            found = ended(client, job)
            assert (found["state"], found["reason"]) == ("done", None)
            assert found["codes"] == {"corrupt_image": 4, "unrecognised_format": 1}
            keys = [row["locator"] for row in rows(client, job)]
            assert sorted(keys) == sorted([*good, *cut, "chest/notes.txt"])
            views = Counter(row["view"] for row in rows(client, job) if row["outcome"] == "done")
            certificate = client.get(f"{job}/certificate").json()
            assert certificate["outcomes"] == {"done": IMAGES, "skipped": 1, "failed": 4}
            assert (certificate["valid"], Counter(certificate["views"])) == (True, views)
