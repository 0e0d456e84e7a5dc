"""Orthanc beside cxrview, as in deploy/compose/orthanc: images go there, and reports come back."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from archive_servers import ORTHANCS, await_answer, ended, free_port, instances
from conftest import ROOT
from live import serving
from pydicom import uid
from pynetdicom import AE
from tools import tool

from service.api.auth.keys import new_key
from service.imaging import RADIOGRAPHS

COMPOSE = ROOT / "deploy/compose/orthanc"
ROUTES = ("python", "lua-stow", "lua-c-store")
PASSWORD = "orthanc's own"
REPORT = uid.Comprehensive3DSRStorage
SECONDS = 60


class Beside:
    """One Orthanc with one of the routes, and what the service beside it is started with."""

    def __init__(self, folder: Path, route: str, release: str) -> None:
        self.folder, self.release = folder, release
        self.http, self.dicom, self.service, self.receiver = (free_port() for _ in range(4))
        self.key, line = new_key("orthanc", frozenset({"classify"}))
        (folder / "keys").write_text(f"{line}\n")
        (folder / "password").write_text(PASSWORD)
        self._settings = folder / "orthanc.json"
        self._settings.write_text(json.dumps(self._adapted(route)))

    def _adapted(self, route: str) -> dict[str, Any]:
        """The settings of the compose file, with this machine's paths and ports."""
        settings = json.loads((COMPOSE / "orthanc.json").read_text())
        scripts = (COMPOSE / f"{route}.json").read_text()
        settings |= json.loads(scripts.replace("/etc/cxrview", str(COMPOSE)))
        storage = str(self.folder / "storage")
        settings |= {"StorageDirectory": storage, "IndexDirectory": storage}
        names = ("Python", "DicomWeb") if route == "python" else ("DicomWeb",)
        settings["Plugins"] = [str(tool(f"{self.release}/libOrthanc{name}.so")) for name in names]
        settings |= {"HttpPort": self.http, "DicomPort": self.dicom}
        settings["DicomModalities"]["cxrview"] |= {"Host": "127.0.0.1", "Port": self.receiver}
        server = settings["DicomWeb"]["Servers"]["cxrview"]
        server["Url"] = server["Url"].replace("cxrview:8000", f"127.0.0.1:{self.service}")
        return settings

    @contextmanager
    def orthanc(self) -> Iterator[None]:
        """Run Orthanc until the block ends; it keeps what it has."""
        log = self.folder / "orthanc.log"
        variables = {
            "ROUTE_KEY": self.key,
            "ORTHANC_PASSWORD": PASSWORD,
            "ROUTE_URL": f"http://127.0.0.1:{self.service}",
            "PYTHONHOME": str(tool(f"{self.release}/Orthanc").parent / "python"),
            "PYTHONPATH": "",
            "TZ": "Asia/Tokyo",  # dates are compared
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [tool(f"{self.release}/Orthanc"), self._settings],
                env=os.environ | variables,
                stdout=output,
                stderr=output,
            )
        try:
            await_answer(process, log, self._answers)
            yield
            process.terminate()
            assert process.wait(30) == 0
        finally:
            ended(process)

    @contextmanager
    def cxrview(self) -> Iterator[None]:
        """Run the service until the block ends, with the destinations of the compose file."""
        destinations = (COMPOSE / "destinations.toml").read_text()
        destinations = destinations.replace("orthanc:8042", f"127.0.0.1:{self.http}")
        destinations = destinations.replace("/run/secrets/orthanc_password", "password")
        (self.folder / "destinations.toml").write_text(destinations)
        ports = ("--port", str(self.service), "--dicom-port", str(self.receiver))
        with serving(
            self.folder / "cxrview.log",
            *("--model", "swift/1.1.0", *ports),
            keys=str(self.folder / "keys"),
            destinations=str(self.folder / "destinations.toml"),
            dicom_callers="ORTHANC@127.0.0.0/8",
        ):
            yield

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """What Orthanc answers its user."""
        user = base64.b64encode(f"cxrview:{PASSWORD}".encode()).decode()
        url = f"http://127.0.0.1:{self.http}{path}"
        request = urllib.request.Request(url, body, {"Authorization": f"Basic {user}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def store(self, files: dict[str, bytes]) -> None:
        """As a modality does, by C-STORE."""
        entity = AE("MODALITY")
        entity.add_requested_context(uid.ComputedRadiographyImageStorage)
        entity.add_requested_context(
            uid.ComputedRadiographyImageStorage, [uid.ExplicitVRLittleEndian]
        )
        association = entity.associate("127.0.0.1", self.dicom, ae_title="ORTHANC")
        assert association.is_established
        for file in files.values():
            assert association.send_c_store(pydicom.dcmread(io.BytesIO(file))).Status == 0
        association.release()

    def classes(self) -> list[str]:
        """The SOP classes of all instances."""
        names = json.loads(self.ask("/instances"))
        return [self.ask(f"/instances/{name}/metadata/SopClassUid").decode() for name in names]

    def await_reports(self, count: int) -> None:
        deadline = time.monotonic() + SECONDS
        while self.classes().count(REPORT) < count:
            assert time.monotonic() < deadline, (self.folder / "orthanc.log").read_text()[-3000:]
            time.sleep(0.1)

    def reported(self) -> dict[str, int]:
        """The instances that reports are about, each with the number of its reports."""
        found: dict[str, int] = {}
        for name in json.loads(self.ask("/instances")):
            tags = json.loads(self.ask(f"/instances/{name}/tags?simplify"))
            if tags["SOPClassUID"] != REPORT:
                continue
            (study,) = tags["CurrentRequestedProcedureEvidenceSequence"]
            assert study["StudyInstanceUID"] == tags["StudyInstanceUID"]
            (image,) = study["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"]
            about = image["ReferencedSOPInstanceUID"]
            found[about] = found.get(about, 0) + 1
        return found


@pytest.mark.parametrize("release", ORTHANCS)
@pytest.mark.parametrize("route", ROUTES)
def test_reports_come_back_once(route: str, release: str, tmp_path: Path) -> None:
    """Into the study of their image; neither a report nor another object is sent to cxrview."""
    beside = Beside(tmp_path, route, release)
    images = instances(5)
    other = pydicom.dcmread(io.BytesIO(next(iter(instances(1, "20240502").values()))))
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    with beside.cxrview(), beside.orthanc():
        beside.store(images)
        buffer = io.BytesIO()
        other.save_as(buffer)
        beside.ask("/instances", buffer.getvalue())
        beside.await_reports(len(images))
        time.sleep(1)  # a loop would go on
        uids = {name.rpartition("/")[2] for name in images}
        assert beside.reported() == dict.fromkeys(uids, 1)
        assert len(beside.classes()) == 2 * len(images) + 1
        assert len(json.loads(beside.ask("/studies"))) == 3
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{beside.service}/metrics", timeout=10)
        with metrics:
            counted = re.findall(
                r"^cxrview_images_total\{.*\} (\d+)", metrics.read().decode(), re.MULTILINE
            )
    assert sum(map(int, counted)) == len(images)


@pytest.mark.parametrize("release", ORTHANCS)
def test_the_plugin_loses_nothing(release: str, tmp_path: Path) -> None:
    """Images that come while cxrview is away are sent later, also after a restart of Orthanc.

    What was there before the plugin is not sent.
    """
    without = Beside(tmp_path, "lua-c-store", release)
    with without.orthanc():
        without.store(instances(1, "20230101"))
    beside = Beside(tmp_path, "python", release)
    first, second = instances(3), instances(3, "20240503")
    with beside.orthanc():
        beside.store(first)
        time.sleep(1.5)
    with beside.orthanc(), beside.cxrview():
        beside.await_reports(len(first))
        beside.store(second)
        beside.await_reports(len(first) + len(second))
        uids = {name.rpartition("/")[2] for name in first | second}
        assert beside.reported() == dict.fromkeys(uids, 1)
    log = (tmp_path / "orthanc.log").read_text()
    assert "it does not answer (URLError)" in log
    assert not re.search(r"Doe|\b4711\b|cxr_", log)


def test_the_scripts_know_the_same_images_as_the_service() -> None:
    """Their lists of SOP classes are those of the service."""
    for name in ("route.py", "stow.lua", "c-store.lua"):
        listed = re.findall(
            r"[\"'](1\.2\.840\.10008\.5\.[\d.]+)[\"']", (COMPOSE / name).read_text()
        )
        assert sorted(listed) == sorted(RADIOGRAPHS), name


def test_the_compose_file_names_what_is_there() -> None:
    """Its files exist, but for the key file of the tutorial, and its image is a target."""
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    volumes = [each for one in services["services"].values() for each in one["volumes"]]
    files = [volume.split(":/")[0] for volume in volumes if volume.startswith("./")]
    for route in ROUTES:
        for file in files:
            assert (COMPOSE / file.replace("${ROUTE:-python}", route)).is_file(), file
    target = services["services"]["cxrview"]["build"]["target"]
    assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text()
    destinations = tomllib.loads((COMPOSE / "destinations.toml").read_text())
    assert destinations["destinations"]["orthanc"]["kind"] == "stow"
