"""Jobs of a running service, with images on their worklist."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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


def write_varied(folder: Path, images: int) -> Path:
    """Pairs as in `write_doubted`, each of another study and another picture."""
    folder.mkdir(parents=True)
    for number in range(2 * images):
        picture = radiograph(96, 96 - number // 4, seed=number // 2)
        position = ("PA", "LL")[number % 2]
        uids = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}"}
        file = dicom(picture, ViewPosition=position, **uids)
        (folder / f"{number:04}.dcm").write_bytes(file)
    return folder


def decide_by_model(url: str, job: str, images: int, key: str) -> list[dict[str, Any]]:
    """Decide so many images with a wrong header: the half with the lowest PFIs is lateral."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=f"{url}/v1/reviews/{job}", timeout=60, headers=headers) as client:
        entries, after = [], 0
        while after is not None:
            answer = client.get("/worklist", params={"show": "all", "after": after}).json()
            entries += [each for each in answer["entries"] if "header" in each["reasons"]]
            after = answer["next"]
        chosen = sorted(entries[:images], key=lambda each: each["pfi"])
        assert len({each["pfi"] for each in chosen}) > images // 2
        for place, each in enumerate(chosen):
            view = "frontal" if 2 * place >= images else "lateral"
            decision = {"instance": each["instance"], "decision": view}
            client.post("/decisions", json=decision).raise_for_status()
    return chosen


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
