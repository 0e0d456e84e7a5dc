"""Jobs of a running service, with images on their worklist."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
from conftest import DATA
from images import dicom, radiograph

SOURCE = DATA / "lateral-0013-header-says-pa.dcm"


def write_doubted(folder: Path, images: int) -> Path:
    """Objects in pairs, of which one header is wrong, whatever the model answers."""
    folder.mkdir(parents=True)
    base = radiograph(160, 128)
    for number in range(2 * images):
        position = ("PA", "LL")[number % 2]
        uids = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}"}
        file = dicom(base + number // 2 % 50, ViewPosition=position, **uids)
        (folder / f"{number:04}.dcm").write_bytes(file)
    return folder


def worked(url: str, archive: Path, key: str | None = None) -> str:
    """Let a service classify an archive; the id of the job."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, timeout=60, headers=headers) as client:
        path = client.post("/v1/backfills", json={"source": str(archive)}).headers["location"]
        deadline = time.monotonic() + 300
        while client.get(path).json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return path.rpartition("/")[2]
