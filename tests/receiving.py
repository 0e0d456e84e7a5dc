"""A service that receives DICOM, and delivers Structured Reports into a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from dicom_peer import EXPLICIT, Stored
from images import Array, dicom, radiograph
from live import Live, serving
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGBaseline8Bit

DESTINATIONS = """
[destinations.reports]
kind = "folder"
path = "reports"
results = ["all", "refused"]
"""
UID = "1.2.826.0.1.3680043.8.498"
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "SECRET-77"}


@cache
def picture(bits: int) -> Array:
    """Of a thorax."""
    return radiograph(192, 160, bits).astype("u1" if bits == 8 else "u2")


def file_of(number: int | str, syntax: str = EXPLICIT, **attributes: Any) -> bytes:
    """A radiograph of a patient, by the last component of its SOP Instance UID."""
    uids = {"SOPInstanceUID": f"{UID}.{number}", "StudyInstanceUID": f"{UID}.2"}
    said = uids | {"SeriesInstanceUID": f"{UID}.3"} | PATIENT | attributes
    return dicom(picture(8 if syntax == JPEGBaseline8Bit else 12), syntax, **said)


def stored(number: int | str, syntax: str = EXPLICIT, **attributes: Any) -> Stored:
    """The same, as C-STORE sends it."""
    return Stored.of(file_of(number, syntax, **attributes))


@contextmanager
def receiving(folder: Path, *options: str, **settings: str) -> Iterator[Live]:
    """Receive DICOM by `serve` until the block ends."""
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "destinations.toml").write_text(DESTINATIONS)
    said = {"model": "swift/1.1.0", "destinations": str(folder / "destinations.toml")}
    with serving(folder / "log", "--dicom-port", "0", *options, **(said | settings)) as live:
        yield live


def reports(folder: Path) -> list[Dataset]:
    """The Structured Reports that were delivered."""
    return [dcmread(path) for path in sorted((folder / "reports").rglob("*.dcm"))]


def subjects(folder: Path) -> list[str]:
    """The SOP Instance UID of the image of each report."""
    return [
        report.CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
        for report in reports(folder)
    ]


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
