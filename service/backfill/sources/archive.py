"""A zip or tar file, of which each entry is read by itself, from several threads."""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Annotated, NamedTuple

from annotated_types import Gt
from pydantic import PositiveInt

from service.backfill.rows import ItemError, SourceError
from service.backfill.sources.files import read_whole
from service.backfill.sources.names import locator_of
from service.backfill.sources.options import Options
from service.inference import Buffer
from service.uploads.archives import check_name
from service.uploads.upload import EntryNameError

SUFFIXES = (".zip", ".tar")
ZIP_LOCAL_HEADER = struct.Struct("<4s22x2H")  # APPNOTE.TXT 4.3.7: signature, two lengths


class ArchiveOptions(Options):
    """Of a zip or tar file. The limits are those of uploads."""

    max_entries: PositiveInt = 2_000_000  # about 800 bytes of memory each
    max_ratio: Annotated[float, Gt(1)] = 200  # inflated / deflated of one entry


class _Entry(NamedTuple):
    name: str
    offset: int  # of a tar: of its bytes; of a zip: of the header before them
    size: int  # as stored
    method: int | None  # of a zip, APPNOTE.TXT 4.4.5; None: of a tar
    crc: int
    plain: bool  # neither link, device, sparse nor encrypted


class ArchiveSource:
    """The entries of a zip or plain tar, by their names.

    Entries of the same name are all found; from the second on, `%00` and a count follow the name.

    Raises:
        SourceError: There is no such file.
    """

    def __init__(self, path: Path, options: ArchiveOptions) -> None:
        self._path = path
        self._options = options
        self._lock = Lock()
        self._entries: dict[str, _Entry] | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"the archive cannot be opened: {error.strerror}") from error

    def find(self) -> Iterator[str]:
        """In the archive's own order.

        Raises:
            SourceError: It is damaged, or has too many entries.
        """
        yield from self._index()

    def read(self, locator: str) -> Buffer:
        """See `Source`."""
        entry = self._index().get(locator)
        if entry is None:
            raise ItemError("not_found", "the archive has no such entry")
        try:
            check_name(entry.name)
        except EntryNameError as error:
            raise ItemError("entry_name", str(error)) from error
        try:
            data = self._bytes_of(entry)
        except (OSError, zlib.error, struct.error) as error:
            raise ItemError("corrupt_archive", "the entry is damaged") from error
        if data.startswith(b"PK\x03\x04") or data[257:262] == b"ustar":
            raise ItemError("nested_archive", "an archive within the archive")
        return data

    def close(self) -> None:
        """Nothing can be read any more."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _index(self) -> dict[str, _Entry]:
        with self._lock:
            if self._descriptor < 0:
                raise SourceError("the archive is closed")
            if self._entries is None:
                self._entries = self._list()
            return self._entries

    def _list(self) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        seen: Counter[str] = Counter()
        try:
            start = read_whole(self._descriptor, 4)  # a tar may end with a zip
            zipped = start in {b"PK\x03\x04", b"PK\x05\x06"}
            found = _zip_entries if zipped else _tar_entries
            for entry in found(self._path):
                if len(entries) == self._options.max_entries:
                    raise SourceError(f"the archive has more than {len(entries)} entries")
                locator = locator_of(entry.name)
                seen[locator] += 1
                again = f"%00{seen[locator]}" if seen[locator] > 1 else ""
                entries[locator + again] = entry
        except (zipfile.BadZipFile, tarfile.TarError, ValueError, EOFError, OSError) as error:
            raise SourceError("the archive is no zip or plain tar, or damaged") from error
        return entries

    def _bytes_of(self, entry: _Entry) -> bytes:
        most = self._options.max_image_bytes
        if not entry.plain:
            raise ItemError("entry_kind", "the entry is encrypted, or no file")
        if entry.size > most:
            raise ItemError("entry_too_large", f"the entry exceeds {most} bytes")
        if entry.method is None:
            return self._stored(entry.offset, entry.size)
        header = read_whole(self._descriptor, ZIP_LOCAL_HEADER.size, entry.offset)
        signature, name, extra = ZIP_LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise ItemError("corrupt_archive", "the entry is damaged")
        start = entry.offset + ZIP_LOCAL_HEADER.size + name + extra
        return self._inflated(entry, self._stored(start, entry.size))

    def _stored(self, offset: int, size: int) -> bytes:
        data = read_whole(self._descriptor, size, offset)
        if len(data) < size:
            raise ItemError("corrupt_archive", "the archive is cut off")
        return data

    def _inflated(self, entry: _Entry, stored: bytes) -> bytes:
        most = self._options.max_image_bytes
        by_ratio = int(self._options.max_ratio * max(entry.size, 1))
        if entry.method == zipfile.ZIP_DEFLATED:
            stream = zlib.decompressobj(-zlib.MAX_WBITS)
            data = stream.decompress(stored, min(most, by_ratio) + 1)
            if len(data) > most:
                raise ItemError("entry_too_large", f"the entry exceeds {most} bytes")
            if len(data) > by_ratio:
                raise ItemError("entry_ratio", "the entry inflates as only a zip bomb does")
        elif entry.method == zipfile.ZIP_STORED:
            data = stored
        else:
            raise ItemError("entry_kind", "the entry is neither stored nor deflated")
        if zlib.crc32(data) != entry.crc:
            raise ItemError("corrupt_archive", "the entry is damaged")
        return data


def _zip_entries(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith("/"):
                yield _Entry(
                    info.filename,
                    info.header_offset,
                    info.compress_size,
                    info.compress_type,
                    info.CRC,
                    plain=not info.flag_bits & 0x1,
                )


def _tar_entries(path: Path) -> Iterator[_Entry]:
    with tarfile.open(path, mode="r:") as archive:
        while (member := archive.next()) is not None:
            if not member.isdir():
                plain = member.isreg() and not member.issparse()
                yield _Entry(member.name, member.offset_data, member.size, None, 0, plain)
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
