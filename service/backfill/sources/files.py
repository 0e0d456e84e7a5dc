"""Reading files of one folder, and nothing outside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from service.backfill.rows import ItemError, SourceError
from service.inference import Buffer


def read_whole(descriptor: int, count: int, offset: int = 0) -> bytes:
    """`count` bytes from `offset`, or all there are; threads may share the descriptor."""
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Root:
    """A folder whose files are read by their names in it.

    Raises:
        SourceError: There is no such folder.
    """

    def __init__(self, path: Path, max_image_bytes: int) -> None:
        self.path = path.absolute()
        self._real = path.resolve()
        self._max_image_bytes = max_image_bytes
        self._identity = self._identify()

    def read(self, name: str) -> Buffer:
        """One file.

        Raises:
            ItemError: `not_found`, `unreadable_file`, `entry_too_large`; `entry_name` where the
                name, or a link, leads out of the folder.
            SourceError: The folder itself is gone, or another is mounted in its place.
        """
        path = self.path / name
        try:
            if "\0" in name or not path.resolve().is_relative_to(self._real):
                raise ItemError("entry_name", "the name leads out of the archive's folder")
            return self._read(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check()
            raise ItemError("not_found", "the file is no longer there") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            self._check()
            raise ItemError(
                "unreadable_file", "the system does not let us read the file"
            ) from error

    def _read(self, path: Path) -> bytes:
        # A pipe without a writer would block for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ItemError("unreadable_file", "it is a folder or a device, not a file")
            data = read_whole(descriptor, min(found.st_size, self._max_image_bytes) + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._max_image_bytes:
            raise ItemError("entry_too_large", f"the file exceeds {self._max_image_bytes} bytes")
        return data

    def _identify(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise SourceError(f"the archive's folder is not there: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise SourceError("the archive's folder is not a folder")
        return found.st_dev, found.st_ino

    def _check(self) -> None:
        """A file system that was unmounted leaves an empty folder, in which nothing is found."""
        if self._identify() != self._identity:
            raise SourceError("the archive's folder is no longer the one that it was")
