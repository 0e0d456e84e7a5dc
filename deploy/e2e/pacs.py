"""A PACS: an Orthanc that sends its images by C-STORE, and gets the reports back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy import observe
from deploy.e2e.stack import READY_SECONDS, answer, status, until
from tests.images import dicom, radiograph

HTTP_PORT, DICOM_PORT = 18110, 18111
ROOT = "1.2.826.0.1.3680043.8.498.2"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR Storage
ROUTE = observe.ROOT / "deploy/compose/orthanc/c-store.lua"
DESTINATIONS = f"""[destinations.orthanc]
kind = "c-store"
host = "127.0.0.1"
port = {DICOM_PORT}
called_ae_title = "ORTHANC"
max_delay_seconds = 2
"""


class Pacs:
    """Orthanc with the script of deploy/compose/orthanc, which sends each new radiograph.

    Args:
        folder: Where it keeps all; made anew.
        receiver_port: Of the DICOM receiver.
    """

    def __init__(self, folder: Path, receiver_port: int) -> None:
        folder.mkdir()
        self._url = f"http://127.0.0.1:{HTTP_PORT}"
        self._settings, self._log = folder / "orthanc.json", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        ours = {"Host": "127.0.0.1", "Port": receiver_port, "AllowTranscoding": False}
        settings = {
            "HttpPort": HTTP_PORT,
            "DicomPort": DICOM_PORT,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "LuaScripts": [str(ROUTE)],
            "DicomModalities": {
                "cxrview": ours | {"AET": "CXRVIEW"},
                "misspelt": ours | {"AET": "CXRWIEV"},
            },
        }
        self._settings.write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it with what it had; returns when it answers."""
        words = [str(observe.tool("orthanc/Orthanc")), str(self._settings)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        until(lambda: status(f"{self._url}/system") == 200, READY_SECONDS, "Orthanc answers")

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(READY_SECONDS)
            self._process = None

    def store(self, images: Iterable[bytes]) -> None:
        """Give it images, as if modalities had sent them."""
        for image in images:
            self._ask("/instances", image)

    def echo(self, modality: str) -> bool:
        """Whether a peer accepts an association and answers C-ECHO."""
        return status(f"{self._url}/modalities/{modality}/echo", b"{}") == 200

    def reports(self) -> dict[str, int]:
        """The SOP Instance UIDs that reports are about, each with the number of its reports."""
        found: dict[str, int] = {}
        for name in self._ask("/instances"):
            tags = self._ask(f"/instances/{name}/tags?simplify")
            if tags["SOPClassUID"] == REPORT:
                (study,) = tags["CurrentRequestedProcedureEvidenceSequence"]
                (image,) = study["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"]
                about = image["ReferencedSOPInstanceUID"]
                found[about] = found.get(about, 0) + 1
        return found

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        return answer(self._url + path, data)


def radiographs(count: int, study: int) -> dict[str, bytes]:
    """Radiographs of one study, by SOP Instance UID."""
    found = {}
    for number in range(count):
        uid = f"{ROOT}.{study}.1.{number}"
        found[uid] = dicom(
            radiograph(64, 56),
            SOPInstanceUID=uid,
            MediaStorageSOPInstanceUID=uid,
            StudyInstanceUID=f"{ROOT}.{study}",
            SeriesInstanceUID=f"{ROOT}.{study}.1",
        )
    return found
