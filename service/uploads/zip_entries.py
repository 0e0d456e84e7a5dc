"""The entries of a zip, from its central directory.

`zipfile` is not used: one damaged record of the directory makes it fail for all entries, with
errors of many classes.

References:
    PKWARE, APPNOTE.TXT 6.3.10: 4.3.7 local header, 4.3.12 directory, 4.3.14 to 4.3.16 its end,
    4.4.4 flags, 4.5.3 zip64.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from service.uploads.entries import Entry, Stored
from service.uploads.upload import (
    CorruptArchiveError,
    EntryKindError,
    TooManyEntriesError,
    UploadError,
)

STARTS = (b"PK\x03\x04", b"PK\x05\x06")
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x1 | 0x40 | 0x2000  # encryption, strong encryption, masked directory
PATCHED = 0x20
UTF8 = 0x800
UNIX = 3
WIDE = 0xFFFFFFFF  # the number is in the zip64 extra field
MAX_EXTRA_FIELDS = 64  # of one entry; real entries have up to ten

LOCAL = Struct("<6xHH16xHH")  # flags, method, lengths of name and extra
# system, flags, method, crc, packed size, size, lengths of name, extra and comment, mode, offset
RECORD = Struct("<4sxB2xHH4xIIIHHH6xHI")
END = Struct("<4s4xHHIIH")  # entries here and in all, size and offset of the directory, comment
END64 = Struct("<4s20xQQQQ")
LOCATOR64 = Struct("<4s16x")


class _Directory(NamedTuple):
    start: int
    end: int
    declared: int  # number of entries
    shift: int  # bytes before the archive, for example of a self-extracting program


def zip_entries(stored: Stored, most: int) -> Iterator[Entry]:
    """All entries except folders, in the directory's order.

    Raises:
        CorruptArchiveError: The directory is damaged; entries before the damage are given first.
        TooManyEntriesError: It has more than `most` entries, folders included.
    """
    directory = _directory(stored)
    if directory is None:
        raise CorruptArchiveError("the zip is damaged or cut off")
    for count, entry in enumerate(_records(stored, directory), start=1):
        if count > most:
            raise TooManyEntriesError(f"the archive has more than {most} entries")
        if not entry.name.endswith("/"):
            yield entry


def declared_entries(stored: Stored) -> int:
    """The number of entries that the end of the directory declares; 0 without one."""
    directory = _directory(stored)
    return directory.declared if directory else 0


def start_of(entry: Entry, stored: Stored) -> int:
    """The offset of the bytes of an entry, after its local header.

    Raises:
        CorruptArchiveError: The local header contradicts the directory.
        EntryKindError: The local header says that the entry is encrypted or a patch.
    """
    fixed = bytes(stored.read(entry.offset, LOCAL.size))
    if len(fixed) < LOCAL.size or not fixed.startswith(STARTS[0]):
        raise CorruptArchiveError("the entry is damaged")
    flags, method, name, extra = LOCAL.unpack(fixed)
    start: int = entry.offset + LOCAL.size
    if (refusal := _refusal(flags, method)) is not None:
        raise refusal
    if _name(bytes(stored.read(start, name)), flags) != entry.name or method != entry.method:
        raise CorruptArchiveError("the entry's header and the archive's directory differ")
    start += name + extra
    return start


def _directory(stored: Stored) -> _Directory | None:
    """The last end record that follows a directory; a comment may hold false ones."""
    tail_at = max(0, stored.size - END.size - 0xFFFF)
    tail = bytes(stored.read(tail_at, stored.size - tail_at))
    at = tail.rfind(STARTS[1], 0, len(tail) - END.size + 4)
    while at >= 0:
        _, _, count, size, offset, comment = END.unpack_from(tail, at)
        end, wide = tail_at + at, _end64(stored, tail_at + at)
        if wide is not None:
            end, count, size, offset = wide
        if offset + size <= end and at + END.size + comment <= len(tail):
            return _Directory(end - size, end, count, end - size - offset)
        at = tail.rfind(STARTS[1], 0, at)
    return None


def _end64(stored: Stored, end: int) -> tuple[int, int, int, int] | None:
    """Place, count, size and offset from the zip64 end record, if there is one before `end`."""
    at = end - LOCATOR64.size - END64.size
    if at < 0:
        return None
    record, locator = stored.read(at, END64.size), stored.read(end - LOCATOR64.size, 4)
    signature, _, count, size, offset = END64.unpack(record)
    return (at, count, size, offset) if (signature, locator) == (b"PK\6\6", b"PK\6\7") else None


def _records(stored: Stored, directory: _Directory) -> Iterator[Entry]:
    at = directory.start
    while at < directory.end:
        fixed = stored.read(at, RECORD.size)
        if len(fixed) < RECORD.size or bytes(fixed[:4]) != b"PK\x01\x02":
            raise CorruptArchiveError("the zip's directory is damaged")
        _, system, flags, method, crc, packed, size, *lengths, mode, offset = RECORD.unpack(fixed)
        name, extra, comment = lengths
        at += RECORD.size
        text = _name(bytes(stored.read(at, name)), flags)
        wide = _widened((size, packed, offset), bytes(stored.read(at + name, extra)))
        at += name + extra + comment
        refusal = _refusal(flags, method, mode if system == UNIX else 0)
        if wide is None:
            refusal = CorruptArchiveError("the entry's extra field is damaged")
        _, packed, offset = wide or (0, 0, 0)
        place = offset + directory.shift
        yield Entry(text, place, packed, method, crc, refusal)


def _name(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8", "surrogateescape") if flags & UTF8 else raw.decode("cp437")


def _refusal(flags: int, method: int, mode: int = 0) -> UploadError | None:
    if flags & ENCRYPTED:
        return EntryKindError("the entry is encrypted")
    if flags & PATCHED:
        return EntryKindError("the entry is a patch of another file")
    if method not in {STORED, DEFLATED}:
        return EntryKindError("the entry is neither stored nor deflated")
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return EntryKindError("the entry is a link or a device, not a file")
    return None


def _widened(numbers: tuple[int, int, int], extra: bytes) -> tuple[int, int, int] | None:
    """Size, packed size and offset, from the extra field if needed; None if that is invalid."""
    missing = numbers.count(WIDE)
    if not missing:
        return numbers
    at = 0
    for _ in range(MAX_EXTRA_FIELDS):
        kind, length = (int.from_bytes(extra[at + n : at + n + 2], "little") for n in (0, 2))
        field = extra[at + 4 : at + 4 + length]
        if kind == 1 and len(field) >= 8 * missing:
            wide = iter(int.from_bytes(field[n : n + 8], "little") for n in range(0, 24, 8))
            size, packed, offset = (next(wide) if each == WIDE else each for each in numbers)
            return size, packed, offset
        at += 4 + length
    return None
