"""A folder, with its subfolders, as a source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from service.backfill.results.rows import SourceError
from service.backfill.sources.files import Root
from service.backfill.sources.names import locator_of, name_of
from service.backfill.sources.options import PeriodOptions
from service.inference import Buffer


class FolderOptions(PeriodOptions):
    """Options of a folder; `since` and `until` apply to the time a file was last modified."""


class FolderSource:
    """The files of a folder; the locator is the path in it.

    Left out, and counted in `left_out`: `hidden` files and folders, whose names begin with a dot;
    `link`, a link to a folder or to a file outside; `special` files, such as pipes and devices;
    files outside the `period`; and files that `vanished` during the listing. An entry whose status
    the system does not return, such as a link to itself, is found, and fails when it is read.

    Raises:
        SourceError: There is no such folder.
    """

    def __init__(self, path: Path, options: FolderOptions) -> None:
        self._root = Root(path, options.max_image_bytes)
        self._options = options
        self.left_out: Counter[str] = Counter()

    def find(self) -> Iterator[str]:
        """The files, folder by folder and sorted by name; holds one folder in memory.

        Raises:
            SourceError: Some folders cannot be listed; the files of all others are given first.
        """
        self.left_out.clear()
        real = self._root.path.resolve()
        waiting, closed = [""], 0
        while waiting:
            folder = waiting.pop()
            try:
                files, folders = self._list(folder, real)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not folder:
                    raise SourceError("the archive's folder is not there") from error
                self.left_out["vanished"] += 1
                continue
            except OSError:
                closed += 1
                continue
            yield from map(locator_of, files)
            waiting += reversed(folders)
        if closed:
            raise SourceError(f"{closed} folders cannot be listed; all others have been")

    def read(self, locator: str) -> Buffer:
        """See `Source`."""
        return self._root.read(name_of(locator))

    def close(self) -> None:
        """Nothing to close."""

    def _list(self, folder: str, real: Path) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        with os.scandir(self._root.path / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    self.left_out["hidden"] += 1
                    continue
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    reason = None if is_folder else self._reason_against(entry, real)
                except (OSError, RuntimeError):  # a link to itself: RuntimeError in 3.11 and 3.12
                    is_folder, reason = False, None  # `read` reports it
                if reason is not None:
                    self.left_out[reason] += 1
                else:
                    (folders if is_folder else files).append(name)
        return sorted(files), sorted(folders)

    def _reason_against(self, entry: os.DirEntry[str], real: Path) -> str | None:
        if entry.is_symlink() and not (
            entry.is_file() and Path(entry.path).resolve().is_relative_to(real)
        ):
            return "link"
        if not entry.is_file():
            return "special"
        if self._options.since is None and self._options.until is None:
            return None  # saves a system call for each file
        try:
            modified = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
        except FileNotFoundError:
            return "vanished"
        return None if self._options.hold(modified) else "period"
