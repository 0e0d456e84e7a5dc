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
    """The temporary file of `path`, for the block to write; deleted after an OSError.

    Raises:
        UnwritableError: The folder cannot be written to.
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
    """The hidden path, in the same folder, where a file is written before it is published.

    It begins with a dot, because pyarrow.dataset reads every file that is not hidden.
    """
    return path.with_name(f".{path.name}.tmp")


def write(path: Path, data: bytes) -> Path:
    """Write and fsync the temporary file of `path`; returns it, for `publish`.

    Raises:
        UnwritableError: The folder cannot be written to; no temporary file is left.
    """
    with writing(path) as draft:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    return draft


def publish(draft: Path) -> Path:
    """Rename a temporary file to its final name, which is returned; may be repeated.

    Raises:
        FileNotFoundError: There is neither the temporary nor the final file.
        ValueError: `draft` is not the name of a temporary file.
    """
    path = draft.with_name(draft.name.removeprefix(".").removesuffix(".tmp"))
    if temporary(path) != draft:
        raise ValueError(f"{draft.name} is not the name of a temporary file")
    try:
        draft.replace(path)
    except FileNotFoundError:
        if not path.exists():  # if it exists, it was renamed before a crash
            raise
        return path
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; only then a new name survives a power failure."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
