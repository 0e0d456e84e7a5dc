"""Files that exist whole or not at all, even after a power failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}


class UnwritableError(OSError):
    """A folder cannot be written to: its disk is full, access is denied, or it is not a folder."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror, str(folder))

    def __str__(self) -> str:
        """The reason, in words for the operator."""
        if self.errno in FULL:
            return f"the disk is full: {self.filename}"
        return f"{self.filename} cannot be written to: {self.strerror}"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """The temporary file of `path`, in whose folder the block writes; what fails leaves none.

    Raises:
        UnwritableError
    """
    draft = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
    except OSError as error:
        with suppress(OSError):  # to free disk space
            draft.unlink()
        raise UnwritableError(path.parent, error) from error


def temporary(path: Path) -> Path:
    """Where a file is written before it is published: beside it, hidden, so that no reader sees it.

    Hidden and not only `.tmp`, because pyarrow.dataset takes every file that is not hidden.
    """
    return path.with_name(f".{path.name}.tmp")


def write(path: Path, data: bytes) -> Path:
    """Write the temporary file of `path` down to the disk; returns it, for `publish`.

    Raises:
        UnwritableError: There is no such file then.
    """
    with writing(path) as draft:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    return draft


def publish(draft: Path) -> Path:
    """Give a temporary file its final name, and return it; a second time changes nothing.

    Raises:
        FileNotFoundError: There is neither the temporary nor the final file.
        ValueError: This is not the name of a temporary file.
    """
    path = draft.with_name(draft.name.removeprefix(".").removesuffix(".tmp"))
    if temporary(path) != draft:
        raise ValueError(f"{draft.name} is not the name of a temporary file")
    try:
        draft.replace(path)
    except FileNotFoundError:
        if not path.exists():  # else a crash came after the renaming
            raise
        return path
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
