"""A job of the service may ask a PACS for pictures, as the command may."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from archive_servers import orthanc
from images import dicom, radiograph

from service.api.settings import Settings

UID = "1.2.826.0.1.3680043.8.498.9"
NAMES = {
    "StudyInstanceUID": UID,
    "SeriesInstanceUID": f"{UID}.1",
    "SOPInstanceUID": f"{UID}.1.1",
    "MediaStorageSOPInstanceUID": f"{UID}.1.1",
}
DAY: dict[str, Any] = {"since": "2024-05-01", "until": "2024-05-01"}


def test_a_job_of_pictures(
    start: Any, light: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options are checked when it is made, its row says what was seen."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc") as pacs:
        pacs.store([dicom(radiograph(640, 512), StudyDate="20240501", **NAMES)])
        update = {"backfill_folder": tmp_path / "jobs", "backfill_sources": (pacs.address,)}
        settings = Settings(**(light.model_dump() | update))
        with start(settings) as service, service.client() as client:
            for wrong in (100, "small"):
                body = {"source": pacs.address, "options": DAY | {"rendered": wrong}}
                assert client.post("/v1/backfills", json=body).status_code == 422
            body = {"source": pacs.address, "options": DAY | {"rendered": 256}}
            job = client.post("/v1/backfills", json=body).headers["Location"]
            deadline = time.monotonic() + 60
            while client.get(job).json()["state"] != "done":
                assert time.monotonic() < deadline, client.get(job).json()
                time.sleep(0.05)
            row = json.loads(client.get(f"{job}/results").text)
            certificate = client.get(f"{job}/certificate").json()
    assert (row["outcome"], row["input"], row["key"]) == ("done", "rendered", f"{UID}.1.1")
    assert row["locator"].endswith("/rendered?viewport=256,320")
    assert certificate["inputs"] == {"stored": 0, "rendered": 1}
