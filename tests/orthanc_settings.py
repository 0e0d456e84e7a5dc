"""An Orthanc for tests and benchmarks: DICOMweb on the loopback address, without authentication."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_settings(
    folder: Path,
    port: int,
    plugins: Iterable[Path],
    dicom_port: int | None = None,
    **others: Any,
) -> Path:
    """Returns the file that Orthanc is started with; it keeps all that it has in the folder."""
    settings = {
        "HttpPort": port,
        "DicomServerEnabled": dicom_port is not None,
        "DicomPort": dicom_port or 4242,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin) for plugin in plugins],
        "SaveJobs": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings | others))
    return path
