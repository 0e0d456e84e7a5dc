"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import os
from pathlib import Path


def temporary(path: Path) -> Path:
    """Where a file is written before it is published: beside it, hidden, so that no reader sees it.

    Hidden and not only `.tmp`, because pyarrow.dataset takes every file that is not hidden.
    """
    return path.with_name(f".{path.name}.tmp")


def write(path: Path, data: bytes) -> Path:
    """Write the temporary file of `path` down to the disk; returns it, for `publish`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
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
