"""A folder: a file for each Structured Report, named by its SOP Instance UID."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from service.dicom.destinations import FolderDestination
from service.dicom.entries import Leased
from service.dicom.senders.payloads import uids_of
from service.dicom.senders.sender import RetryableError, Warned

MODE = 0o640  # its group may read reports, others may not


class FolderSender:
    """Writes files. A reader sees a whole file or none; a repetition replaces it by the same."""

    def __init__(self, destination: FolderDestination) -> None:
        self._path = destination.path

    def send(self, leased: Leased) -> Warned | None:
        """See Sender. The file and its name are on the disk on return."""
        _, uid = uids_of(leased.payload)
        part = self._path / f".{uid}.part"
        try:
            _write(part, leased.payload)
            part.replace(self._path / f"{uid}.dcm")
            _sync(self._path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            detail = error.strerror or type(error).__name__
            raise RetryableError("folder", detail, away=True) from error
        return None

    def idle(self) -> None:
        """See Sender."""

    def close(self) -> None:
        """See Sender."""


def _write(path: Path, data: bytes) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
