"""STOW-RS clients as hospitals have them: dicomweb-client, curl and Orthanc send to the service."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import needs
import pydicom
import pytest
from archive_servers import ORTHANCS, instances, orthanc
from live import Live, serving

from service.dicom.outbox import Outbox

SYNCHRONOUS = {"Synchronous": True}


@dataclass(frozen=True)
class Receiving:
    """A service with a folder as its destination."""

    live: Live
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.live.url}/dicom-web"

    def received(self) -> int:
        """How many results there are."""
        outbox = Outbox(f"sqlite:///{self.folder / 'outbox.sqlite'}")
        try:
            return sum(sum(each.states.values()) for each in outbox.counts().values())
        finally:
            outbox.close()


@contextmanager
def receiving(folder: Path) -> Iterator[Receiving]:
    (folder / "results").mkdir()
    destinations = folder / "destinations.toml"
    destinations.write_text('[destinations.folder]\nkind = "folder"\npath = "results"\n')
    settings = {"model": "swift/1.1.0", "destinations": str(destinations)}
    with serving(folder / "log", **settings) as live:
        yield Receiving(live, folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Receiving]:
    with receiving(tmp_path) as service:
        yield service


def test_dicomweb_client_stores_a_study(service: Receiving) -> None:
    """It reads which instances were stored, and which failed."""
    web = pytest.importorskip("dicomweb_client.web", reason=needs.DEV)
    datasets = [pydicom.dcmread(io.BytesIO(each)) for each in instances(6).values()]
    datasets[1].SOPClassUID = datasets[1].file_meta.MediaStorageSOPClassUID = "1.2.3"
    client = web.DICOMwebClient(service.url)
    answer = client.store_instances(datasets[:4], datasets[0].StudyInstanceUID)
    stored = [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence]
    assert stored == [datasets[each].SOPInstanceUID for each in (0, 2, 3)]
    (failed,) = answer.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == datasets[1].SOPInstanceUID
    assert failed.FailureReason == 0x0122
    answer = client.store_instances(datasets[4:])
    assert len(answer.ReferencedSOPSequence) == 2
    assert service.received() == 5


def test_curl_sends_one_object_or_many(service: Receiving) -> None:
    """The commands of docs/dicom-stow.md."""
    if shutil.which("curl") is None:
        pytest.skip(needs.CURL)
    for number, each in enumerate(instances(2).values()):
        (service.folder / f"{number}.dcm").write_bytes(each)

    def curl(*options: str) -> dict[str, Any]:
        command = ["curl", "--silent", "--fail-with-body", f"{service.url}/studies", *options]
        run = subprocess.run(command, cwd=service.folder, capture_output=True, check=True)
        answer: dict[str, Any] = json.loads(run.stdout)
        return answer

    answer = curl("--header", "Content-Type: application/dicom", "--data-binary", "@0.dcm")
    assert len(answer["00081199"]["Value"]) == 1
    answer = curl(
        *("--header", 'Content-Type: multipart/related; type="application/dicom"'),
        *("--form", "file=@0.dcm;type=application/dicom"),
        *("--form", "file=@1.dcm;type=application/dicom"),
    )
    assert len(answer["00081199"]["Value"]) == 2
    assert service.received() == 2


def ask(url: str, method: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


@pytest.mark.parametrize("release", ORTHANCS)
def test_orthanc_sends_studies(release: str, service: Receiving, tmp_path: Path) -> None:
    """By its DICOMweb plugin, which fails unless every instance is stored."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with orthanc(folder, release) as server:
        server.store(instances(30).values())
        ask(f"{server.address}/servers/cxrview", "PUT", {"Url": service.url})
        studies = ask(f"{server.root}/studies", "GET")
        stow = f"{server.address}/servers/cxrview/stow"
        for _ in range(2):
            done = ask(stow, "POST", {"Resources": studies} | SYNCHRONOUS)
            assert done["InstancesCount"] == "30"
            assert service.received() == 30
        ct = next(iter(instances(1, "20240502").values())).replace(b"1.1.1\0", b"1.1.2\0")
        server.store([ct])
        (other,) = set(ask(f"{server.root}/studies", "GET")) - set(studies)
        with pytest.raises(urllib.error.HTTPError):
            ask(stow, "POST", {"Resources": [other]} | SYNCHRONOUS)
