"""Zip and tar archives, read one entry at a time, within limits."""

from __future__ import annotations

import zlib
from bisect import bisect, insort
from collections.abc import Iterator
from dataclasses import dataclass

from service.inference import Buffer
from service.uploads import zip_entries as zips
from service.uploads.entries import Entry, Stored
from service.uploads.tar_entries import tar_entries
from service.uploads.upload import (
    ArchiveTooLargeError,
    CorruptArchiveError,
    EntryNameError,
    EntryRatioError,
    EntryTooLargeError,
    NestedArchiveError,
    TooManyEntriesError,
    UnknownArchiveError,
    Upload,
    UploadError,
)

PIECE = 2**16  # deflated bytes a step
MAX_NAME = 4096  # characters; Linux has no longer paths


@dataclass(frozen=True)
class ArchiveLimits:
    """See `Settings`."""

    entries: int
    entry_bytes: int
    ratio: float
    total_bytes: int  # of all entries, inflated, including entries that are refused half-way


def read_archive(body: bytes, limits: ArchiveLimits) -> Iterator[Upload]:
    """The files of a zip or plain tar, one at a time; a refused entry does not stop the others.

    Raises (also while iterating):
        UnknownArchiveError: The content is neither zip nor tar.
        CorruptArchiveError: The archive is damaged, and cannot be read further.
        TooManyEntriesError, ArchiveTooLargeError: It has more entries or bytes than the limits.
    """
    stored = Stored.of(body)
    if body.startswith(zips.STARTS):
        if zips.declared_entries(stored) > limits.entries:  # known before the answer begins
            raise TooManyEntriesError(f"the archive has more than {limits.entries} entries")
    elif body[257:262] != b"ustar":
        raise UnknownArchiveError(
            "the body is neither multipart/form-data nor, by content, a zip or an uncompressed tar"
        )
    return _uploads(stored, limits)


def list_entries(stored: Stored, most: int) -> Iterator[Entry]:
    """The entries of a zip or tar, without folders.

    Raises:
        CorruptArchiveError: It is neither, or damaged; entries before the damage are given first.
        TooManyEntriesError: It has more than `most` entries, folders included.
    """
    zipped = bytes(stored.read(0, 4)) in zips.STARTS  # a tar may end with a zip
    return (zips.zip_entries if zipped else tar_entries)(stored, most)


def read_entry(
    entry: Entry, stored: Stored, limits: ArchiveLimits, budget: UnpackedBudget | None = None
) -> Buffer:
    """The checked bytes of one entry; those of a tar are not copied.

    Args:
        entry: From `list_entries`.
        stored: The archive.
        limits: Only the limits of one entry are used.
        budget: Limits all entries that are read in a sequence.

    Raises:
        UploadError: A subclass that says why it is refused.
    """
    check_name(entry.name)
    if entry.refusal is not None:
        # A new object, because each raise extends the traceback
        raise type(entry.refusal)(*entry.refusal.args)
    if entry.size > limits.entry_bytes:
        raise EntryTooLargeError(f"the entry exceeds {limits.entry_bytes} bytes")
    if entry.method is None:
        data = _piece(stored, entry.offset, entry.size)
    else:
        data = _unpacked(entry, stored, limits, budget or UnpackedBudget(None))
    start = bytes(data[:262])
    if start.startswith(b"PK\x03\x04") or start[257:] == b"ustar":
        raise NestedArchiveError("an archive within the archive; send it by itself")
    return data


def _uploads(stored: Stored, limits: ArchiveLimits) -> Iterator[Upload]:
    budget = UnpackedBudget(limits.total_bytes)
    for entry in list_entries(stored, limits.entries):
        # A name that is valid in JSON
        name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        try:
            data = read_entry(entry, stored, limits, budget)
        except ArchiveTooLargeError:
            raise  # about the archive, not about this entry
        except UploadError as error:
            yield Upload(name, error=error)
        else:
            yield Upload(name, data)


class UnpackedBudget:
    """Limits the inflated bytes of a zip, and refuses entries that overlap (zip bombs).

    Args:
        total: The most inflated bytes of all entries; None: no limit.
    """

    def __init__(self, total: int | None) -> None:
        self._left = total
        self._claimed: list[tuple[int, int]] = []
        self._begun: set[int] = set()

    def spend(self, count: int) -> None:
        """Count inflated bytes.

        Raises:
            ArchiveTooLargeError: All entries together exceed the limit.
        """
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise ArchiveTooLargeError(
                    "the archive inflates beyond the limit for all its entries"
                )

    def check(self, start: int, end: int) -> None:
        """Check that an entry overlaps no other.

        Raises:
            CorruptArchiveError: It overlaps an entry that was read, or shares its header with
                another one.
        """
        if start in self._begun:
            raise CorruptArchiveError("another entry has the same header")
        self._begun.add(start)
        at = bisect(self._claimed, (start, end))
        before, after = self._claimed[at - 1 : at], self._claimed[at : at + 1]
        if (before and before[0][1] > start) or (after and after[0][0] < end):
            raise CorruptArchiveError("the entry overlaps another")

    def claim(self, start: int, end: int) -> None:
        """Record the extent of an entry that was read."""
        insort(self._claimed, (start, end))


def _piece(stored: Stored, offset: int, size: int) -> Buffer:
    data = stored.read(offset, size)
    if len(data) < size:
        raise CorruptArchiveError("the entry is cut off")
    return data


def _unpacked(
    entry: Entry, stored: Stored, limits: ArchiveLimits, budget: UnpackedBudget
) -> Buffer:
    start = zips.start_of(entry, stored)
    budget.check(entry.offset, start + entry.size)
    packed = _piece(stored, start, entry.size)
    if entry.method == zips.DEFLATED:
        data: Buffer = _inflated(packed, limits, budget)
    else:
        data = packed
        budget.spend(len(data))
    if zlib.crc32(data) != entry.crc:
        raise CorruptArchiveError("the entry is damaged")
    # Only after the checks: the false extent of a bad entry must not hide another one
    budget.claim(entry.offset, start + entry.size)
    return data


def _inflated(packed: Buffer, limits: ArchiveLimits, budget: UnpackedBudget) -> bytes:
    by_ratio = int(limits.ratio * max(len(packed), 1))
    most = min(limits.entry_bytes, by_ratio)  # the size in the directory may be wrong
    view, stream, pieces, size = memoryview(packed), zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    try:
        for at in range(0, len(view), PIECE):
            if stream.eof:
                raise CorruptArchiveError("the entry is longer than its data")
            piece = stream.decompress(view[at : at + PIECE], most + 1 - size)
            size += len(piece)
            budget.spend(len(piece))
            if size > limits.entry_bytes:
                raise EntryTooLargeError(f"the entry exceeds {limits.entry_bytes} bytes")
            if size > most:
                raise EntryRatioError(f"the entry inflates more than {limits.ratio:g} times")
            pieces.append(piece)
    except zlib.error as error:
        raise CorruptArchiveError("the entry is damaged") from error
    if not stream.eof or stream.unused_data:
        raise CorruptArchiveError("the entry is damaged or cut off")
    return b"".join(pieces)


def check_name(name: str) -> None:
    """Check the name of an entry. This service only echoes it, but a client may unpack by it.

    Raises:
        EntryNameError: It leaves its folder, or is empty, too long or not printable.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise EntryNameError("the name is empty, too long or holds control characters")
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or parts[0][1:2] == ":" or ".." in parts:  # also paths of Windows
        raise EntryNameError("the name leaves the archive's folder")
