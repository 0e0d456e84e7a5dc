"""Read files of one folder, and none outside it."""

from __future__ import annotations

import stat
from pathlib import Path

from service.backfill.results.rows import ItemError, SourceError
from service.inference import Buffer
from service.uploads.files import read_regular
from service.uploads.upload import UploadError


class Root:
    """A folder whose files are read by their path in it.

    Raises:
        SourceError: There is no such folder.
    """

    def __init__(self, path: Path, max_image_bytes: int) -> None:
        self.path = path.absolute()
        self._real = path.resolve()
        self._max_image_bytes = max_image_bytes
        self._identity = self._identify()

    def read(self, name: str) -> Buffer:
        """The bytes of one file.

        Raises:
            ItemError: `not_found`, `unreadable_file`, `entry_too_large`; `entry_name`: the name or
                a link leads out of the folder.
            SourceError: The folder is gone, or another one is mounted at its path.
        """
        path = self.path / name
        try:
            if "\0" in name or not path.resolve().is_relative_to(self._real):
                raise ItemError("entry_name", "the name leads out of the archive's folder")
            return read_regular(path, self._max_image_bytes)
        except UploadError as error:
            raise ItemError(error.code, str(error)) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check()
            raise ItemError("not_found", "the file is no longer there") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            self._check()
            raise ItemError(
                "unreadable_file", "the system does not let us read the file"
            ) from error

    def _identify(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise SourceError(f"the archive's folder is not there: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise SourceError("the archive's folder is not a folder")
        return found.st_dev, found.st_ino

    def _check(self) -> None:
        """Raise SourceError if the folder was replaced: unmounting leaves an empty one."""
        if self._identify() != self._identity:
            raise SourceError("the archive's folder is no longer the one that it was")
