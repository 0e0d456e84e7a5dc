"""What senders read of a payload."""

from __future__ import annotations

from io import BytesIO

import pydicom
from pydicom.dataset import FileDataset


def report_of(payload: bytes) -> FileDataset:
    """The Structured Report of a payload."""
    return pydicom.dcmread(BytesIO(payload))


def uids_of(payload: bytes) -> tuple[str, str]:
    """SOP Class UID and SOP Instance UID of a Structured Report."""
    meta = pydicom.dcmread(BytesIO(payload), stop_before_pixels=True, specific_tags=[]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
