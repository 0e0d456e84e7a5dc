"""What senders read of a payload."""

from __future__ import annotations

from io import BytesIO

import pydicom
from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial


def report_of(payload: bytes) -> FileDataset:
    """The Structured Report of a payload."""
    return pydicom.dcmread(BytesIO(payload))


def uids_of(payload: bytes) -> tuple[str, str]:
    """SOP Class UID and SOP Instance UID of a Structured Report; its data set is not read."""
    meta = read_partial(BytesIO(payload), stop_when=lambda *_: True).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
