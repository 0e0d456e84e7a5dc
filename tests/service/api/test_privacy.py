"""Whatever becomes of a file, nothing of its patient is in a metric or a log."""

from __future__ import annotations

import io
import random
import signal
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from images import dicom, jpeg, png, radiograph
from live import Live, serving
from PIL import Image, PngImagePlugin
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.tag import Tag

from service.api.auth.keys import PERMISSIONS
from service.cli import main

NAME, NUMBER = (
    "Zebra",
    "4711987203",
)  # each attribute that identifies a person or an examination has one
PATIENT: dict[str, Any] = {
    "AccessionNumber": NUMBER,
    "AcquisitionDateTime": f"{NUMBER}0101",
    "BodyPartExamined": NAME.upper(),
    "DeviceSerialNumber": NUMBER,
    "ImageComments": f"{NAME} was restless",
    "InstitutionName": f"Hospital of {NAME}",
    "OtherPatientIDs": [f"{NAME}1", f"{NAME}2"],
    "PatientAddress": f"1 {NAME} Street",
    "PatientBirthDate": DataElement(Tag("PatientBirthDate"), "LO", NUMBER),
    "PatientComments": f"{NAME} again",
    "PatientID": f"{NAME}-{NUMBER}",
    "PatientName": f"{NAME}^Quagga",
    "ReferringPhysicianName": f"Dr^{NAME}",
    "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.{NUMBER}.1",
    "SeriesInstanceUID": f"1.2.826.0.1.3680043.8.498.{NUMBER}.2",
    "StationName": NAME,
    "StudyDescription": f"Thorax of {NAME}",
    "StudyID": NUMBER,
    "StudyInstanceUID": f"1.2.826.0.1.3680043.8.498.{NUMBER}.3",
    "ViewPosition": NAME.upper(),
}
PICTURE = radiograph(64, 64)
EIGHT = (PICTURE >> 4).astype(np.uint8)
FILE = f"{NAME}_{NUMBER}.dcm"
FORM = {"content-type": f"application/dicom; name={FILE}", "user-agent": f"Viewer of {NAME}"}


def refused_for_what_they_hold() -> Iterator[bytes]:
    """DICOM objects whose attributes are the reason."""
    wrong: list[dict[str, Any]] = [
        {"BitsAllocated": 24},
        {"NumberOfFrames": 2},
        {"PhotometricInterpretation": NAME.upper()},
        {"PixelData": None},
        {"PixelRepresentation": DataElement(Tag("PixelRepresentation"), "LO", NAME)},
        {"RescaleIntercept": DataElement(Tag("RescaleIntercept"), "LO", NAME)},
        {"RescaleSlope": "0"},
        {"RescaleSlope": DataElement(Tag("RescaleSlope"), "LO", NUMBER * 3)},
        {"Rows": 65535},
        {"SOPClassUID": f"1.2.{NUMBER}"},
        {"TransferSyntaxUID": f"1.2.{NUMBER}"},
    ]
    for attributes in wrong:
        yield dicom(PICTURE, **PATIENT | attributes)


def with_text(kind: str) -> bytes:
    """A PNG or a JPEG that says whose it is."""
    buffer, image = io.BytesIO(), Image.fromarray(EIGHT)
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Title", f"{NAME} {NUMBER}")
        text.add_text(NAME, NUMBER, zip=True)
        image.save(buffer, kind, pnginfo=text)
    else:
        exif = Image.Exif()
        exif[0x010E] = f"{NAME} {NUMBER}"
        image.save(buffer, kind, exif=exif, comment=f"{NAME} {NUMBER}")
    return buffer.getvalue()


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Cut off, or with some bytes changed, most of them before the pixels."""
    choose = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(choose.choice([1, 2, 8])):
            copy[choose.randrange(min(len(copy), 2000))] = choose.randrange(256)
        yield bytes(copy[: choose.choice([len(copy), choose.randrange(len(copy))])])


def files() -> Iterator[bytes]:
    """Good and bad ones."""
    good = [
        dicom(PICTURE, **PATIENT),
        dicom(PICTURE, uid.ImplicitVRLittleEndian, **PATIENT),
        dicom(PICTURE, uid.JPEG2000Lossless, **PATIENT),
        dicom(PICTURE, uid.JPEGLosslessSV1, **PATIENT),
        dicom(PICTURE, uid.RLELossless, **PATIENT),
        with_text("PNG"),
        with_text("JPEG"),
    ]
    yield from good
    yield from refused_for_what_they_hold()
    for seed, data in enumerate(good):
        yield from damaged(data, 120, seed)


def zipped(names: list[str], data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(names: list[str], data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def batches() -> Iterator[dict[str, Any]]:
    """Forms and archives whose files are called after a patient, and damaged ones."""
    data = dicom(PICTURE, **PATIENT)
    names = [FILE, f"../{FILE}", f"{NAME}\n{NUMBER}.png", f"{NAME}.zip"]
    yield {"files": [("files", (name, data)) for name in names]}
    yield {"files": [("files", (FILE, piece)) for piece in damaged(data, 40, 1)]}
    yield {"files": [(NAME, (FILE, data))]}
    for archive in (zipped(names, data), tarred(names, data)):
        yield {"content": archive}
        for piece in damaged(archive, 20, 2):
            yield {"content": piece}
    yield {"content": zipped([FILE], zipped([FILE], data))}
    yield {"content": zipped([FILE], bytes(2**24))}


@pytest.fixture
def live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Live, str]]:
    """A service that logs all that it can, and a key for it."""
    keys = tmp_path / "keys"
    assert main(["key", "pacs", *PERMISSIONS, "--file", str(keys)]) == 0
    key = capsys.readouterr().out.strip()
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    settings = {"model": "swift/1.0.0", "keys": str(keys), "max_upload_bytes": str(2**22)}
    settings |= {"access_log": "true", "audit_log": "-", "audit_key": str(tmp_path / "secret")}
    with serving(tmp_path / "log", **settings) as live:
        yield live, key


def test_no_metric_or_log_knows_a_patient(live: tuple[Live, str]) -> None:
    """Of some hundred files, good and bad, alone and in batches; their answers do say who."""
    service, key = live
    statuses: Counter[int] = Counter()
    told = ""
    address = f"http://127.0.0.1:{service.port}"
    with httpx2.Client(
        base_url=address, timeout=30, headers={"authorization": f"Bearer {key}"}
    ) as client:
        for data in files():
            answer = client.post("/v1/classify", content=data, headers=FORM)
            statuses[answer.status_code] += 1
            assert answer.is_success or NAME.lower() not in answer.text.lower()
        form = {"file": (FILE, jpeg(EIGHT)), NAME: (None, NUMBER)}
        statuses[client.post("/v1/classify", files=form).status_code] += 1
        large = png(np.random.default_rng(0).integers(0, 256, (2100, 2100), dtype=np.uint8))
        statuses[client.post("/v1/classify", files={"file": (FILE, large)}).status_code] += 1
        for body in batches():
            told += client.post("/v1/classify/batch", **body).text
        statuses[client.get("/v1/model", headers={"authorization": NAME}).status_code] += 1
        metrics = client.get("/metrics").text
    assert {200, 401, 413, 415, 422} <= statuses.keys() <= {200, 400, 401, 413, 415, 422}
    assert NAME in told
    assert NUMBER in told
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    log = service.log.read_text(errors="replace")
    assert log.count("POST /v1/classify") == statuses.total() - 1 + len(list(batches()))
    assert log.count("sop_instance_uid") > 10
    for text in (metrics, log):
        assert NAME.lower() not in text.lower()
        assert NUMBER not in text
    assert "Traceback" not in log
