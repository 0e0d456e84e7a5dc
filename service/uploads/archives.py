"""Zip and tar bodies, read one entry at a time, each within its limits."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath

from service.uploads.upload import (
    ArchiveTooLargeError,
    CorruptArchiveError,
    EntryKindError,
    EntryNameError,
    EntryRatioError,
    EntryTooLargeError,
    NestedArchiveError,
    TooManyEntriesError,
    UnknownArchiveError,
    Upload,
    UploadError,
)

CHUNK = 2**20


@dataclass(frozen=True)
class ArchiveLimits:
    """See `Settings`."""

    entries: int
    entry_bytes: int
    ratio: float
    total_bytes: int  # of all entries, inflated; also of those that are refused half-way


def read_archive(body: bytes, limits: ArchiveLimits) -> Iterator[Upload]:
    """The files of a zip or plain tar, one at a time; a refused entry does not end the others.

    Raises (also while iterating):
        UnknownArchiveError: Neither zip nor tar, by content.
        CorruptArchiveError: It cannot be read on.
        TooManyEntriesError, ArchiveTooLargeError: More entries, or bytes, than the limits.
    """
    if body.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        # zipfile reads the whole directory at once, so its entries are counted before
        if body.count(b"PK\x01\x02") > limits.entries:
            raise TooManyEntriesError(f"the archive has more than {limits.entries} entries")
        return _zip_entries(body, limits)
    if body[257:262] == b"ustar":
        return _tar_entries(body, limits)
    raise UnknownArchiveError(
        "the body is neither multipart/form-data nor, by content, a zip or an uncompressed tar"
    )


def _zip_entries(body: bytes, limits: ArchiveLimits) -> Iterator[Upload]:
    budget = _Budget(limits.total_bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for info in archive.infolist():
                if not info.filename.endswith("/"):  # is_dir() stumbles over an empty name
                    yield _checked(info.filename, partial(_inflate, archive, info, limits, budget))
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise CorruptArchiveError("the zip is damaged or cut off") from error


class _Budget:
    """Bytes that may still be inflated: entries that overlap make gigabytes of one body."""

    def __init__(self, total: int) -> None:
        self.left = total

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ArchiveTooLargeError("the archive inflates beyond the limit for all its entries")


def _inflate(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits, budget: _Budget
) -> bytes:
    if info.flag_bits & 0x1:
        raise EntryKindError("the entry is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise EntryKindError("the entry is neither stored nor deflated")
    most = min(limits.entry_bytes, int(limits.ratio * max(info.compress_size, 1)))
    pieces, size = [], 0
    try:
        with archive.open(info) as file:
            while piece := file.read(CHUNK):  # what the directory says of the size may be a lie
                size += len(piece)
                budget.spend(len(piece))
                if size > limits.entry_bytes:
                    raise EntryTooLargeError(f"the entry exceeds {limits.entry_bytes} bytes")
                if size > most:
                    raise EntryRatioError(f"the entry inflates more than {limits.ratio:g} times")
                pieces.append(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CorruptArchiveError("the entry is damaged") from error
    return b"".join(pieces)


def _tar_entries(body: bytes, limits: ArchiveLimits) -> Iterator[Upload]:
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                if count > limits.entries:
                    raise TooManyEntriesError(f"the archive has more than {limits.entries} entries")
                if not member.isdir():
                    yield _checked(member.name, partial(_extract, archive, member, limits))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise CorruptArchiveError("the tar is damaged or cut off") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, limits: ArchiveLimits) -> bytes:
    if not member.isreg() or member.issparse():
        raise EntryKindError("the entry is a link, a device or sparse, not a file")
    if member.size > limits.entry_bytes:
        raise EntryTooLargeError(f"the entry exceeds {limits.entry_bytes} bytes")
    file = archive.extractfile(member)
    assert file is not None  # of a regular file it never is
    return file.read()


def _checked(name: str, read: Callable[[], bytes]) -> Upload:
    """Read one entry; what is wrong with it becomes its error, not its neighbours'."""
    try:
        check_name(name)
        data = read()
        if data.startswith(b"PK\x03\x04") or data[257:262] == b"ustar":
            raise NestedArchiveError("an archive within the archive; send it by itself")
    except ArchiveTooLargeError:
        raise  # no entry's own fault
    except UploadError as error:
        return Upload(name, error=error)
    return Upload(name, data)


def check_name(name: str) -> None:
    """Names are only echoed here, but whoever unpacks by our answers must be safe too.

    Raises:
        EntryNameError: It leaves its folder, or names nothing.
    """
    pure = PurePosixPath(name), PureWindowsPath(name)
    if any(path.is_absolute() or path.drive or ".." in path.parts for path in pure):
        raise EntryNameError("the name leaves the archive's folder")
    if not name or not name.isprintable():
        raise EntryNameError("the name is empty or holds control characters")
