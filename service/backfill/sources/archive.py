"""A zip or tar file as a source; several threads read its entries."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Annotated

from annotated_types import Gt
from pydantic import PositiveInt

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources.names import locator_of
from service.backfill.sources.options import Options
from service.inference import Buffer
from service.uploads.archives import ArchiveLimits, list_entries, read_entry
from service.uploads.entries import Entry, Stored
from service.uploads.files import read_whole
from service.uploads.upload import TooManyEntriesError, UploadError

SUFFIXES = (".zip", ".tar")
NAME_BYTES = 256  # memory for names: so many bytes times the limit of entries


class ArchiveOptions(Options):
    """Options of a zip or tar file; limits as for uploads."""

    max_entries: PositiveInt = 2_000_000
    """The most entries; each takes about 800 bytes of memory."""
    max_ratio: Annotated[float, Gt(1)] = 200
    """By how much an entry may inflate."""


class ArchiveSource:
    """The entries of a zip or plain tar; the locator is the entry's name.

    Several entries with one name are all found; from the second on, `%00` and a count follow the
    name.

    Raises:
        SourceError: There is no such file.
    """

    def __init__(self, path: Path, options: ArchiveOptions) -> None:
        most = options.max_entries
        self._limits = ArchiveLimits(most, options.max_image_bytes, options.max_ratio, 0)
        self._lock = Lock()
        self._entries: dict[str, Entry] | None = None
        self._damage: Exception | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"the archive cannot be opened: {error.strerror}") from error
        found = os.fstat(self._descriptor)
        self._stored = Stored(found.st_size, self._read_at)
        if not stat.S_ISREG(found.st_mode):  # reading a pipe could block for ever
            self.close()
            raise SourceError("the archive is a folder or a device, not a file")

    def find(self) -> Iterator[str]:
        """The entries in the archive's order.

        Raises:
            SourceError: The archive has too many entries, or is damaged; the entries before the
                damage are given first.
        """
        yield from self._index()
        if self._damage is not None:
            raise SourceError(f"the archive is not whole: {self._damage}") from self._damage

    def read(self, locator: str) -> Buffer:
        """See `Source`."""
        entry = self._index().get(locator)
        if entry is None:
            raise ItemError("not_found", "the archive has no such entry")
        try:
            return read_entry(entry, self._stored, self._limits)
        except UploadError as error:
            raise ItemError(error.code, str(error)) from error
        except OSError as error:
            raise ItemError("corrupt_archive", "the entry cannot be read") from error

    def close(self) -> None:
        """Close the file; later reads raise SourceError."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _read_at(self, offset: int, count: int) -> bytes:
        return read_whole(self._descriptor, count, offset)

    def _index(self) -> dict[str, Entry]:
        with self._lock:
            if self._descriptor < 0:
                raise SourceError("the archive is closed")
            if self._entries is None:
                self._entries = self._list()
            return self._entries

    def _list(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        seen: Counter[str] = Counter()
        names = 0
        try:
            for entry in list_entries(self._stored, self._limits.entries):
                locator = locator_of(entry.name)
                names += len(locator)
                if names > NAME_BYTES * self._limits.entries:
                    raise SourceError("the archive has longer names than memory is meant for")
                seen[locator] += 1
                again = f"%00{seen[locator]}" if seen[locator] > 1 else ""
                entries[locator + again] = entry
        except TooManyEntriesError as error:
            raise SourceError(str(error)) from error
        except UploadError as error:
            self._damage = error
        except OSError as error:
            raise SourceError(f"the archive cannot be read: {error.strerror}") from error
        return entries
