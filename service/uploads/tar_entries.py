"""The entries of a tar: ustar, pax and GNU, read header by header.

`tarfile` is not used: in supported Python versions it parses some headers in quadratic time while
it holds the GIL (CVE-2024-6232), it recurses, and it takes damage for the end of the archive.

References:
    POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual,
    "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from service.uploads.entries import Entry, Stored
from service.uploads.upload import CorruptArchiveError, EntryKindError, TooManyEntriesError

BLOCK = 512
REGULAR = {b"0", b"\0", b"7"}
FOLDER = b"5"
WITHOUT_DATA = {b"1", b"2", b"3", b"4", FOLDER, b"6"}  # links, devices, pipes
SPARSE = b"S"
# x: pax; X: pax of Solaris; g: pax global; L: GNU long name; K: GNU long link
EXTENSIONS = {b"x", b"X", b"g", b"L", b"K"}

# Limits of all extension headers of one entry. Names have at most 4,096 bytes, extended attributes
# 64 KiB each; real entries have up to three extensions, and up to forty records
MAX_EXTENSION_BYTES = 2**20
MAX_EXTENSIONS = 16
MAX_RECORDS = 128


def tar_entries(stored: Stored, most: int) -> Iterator[Entry]:
    """All entries except folders, in order.

    Raises:
        CorruptArchiveError: The tar is damaged; entries before the damage are given first.
        TooManyEntriesError: It has more than `most` entries, folders included.
    """
    at, count, extension = 0, 0, _Extension()
    while (header := _header_at(stored, at)) is not None:
        if count == most:
            raise TooManyEntriesError(f"the archive has more than {most} entries")
        at += BLOCK
        if header.kind in EXTENSIONS:
            at = extension.add(header, stored, at)
            count += extension.headers > MAX_EXTENSIONS  # a chain of extensions counts as entries
            continue
        entry = _entry(header, extension, stored, at)
        if header.kind != FOLDER:
            yield entry
        at = entry.offset + _padded(entry.size)
        if at > stored.size:
            raise CorruptArchiveError("the tar is damaged or cut off")
        count, extension = count + 1, _Extension()


class _Header(NamedTuple):
    kind: bytes
    name: str
    size: int | None  # None: not a number
    block: bytes


def _header_at(stored: Stored, at: int) -> _Header | None:
    """The header at an offset; None at the end, with or without the blocks of zeros."""
    if at == stored.size:
        return None
    block = bytes(stored.read(at, BLOCK))
    if not any(block) and block:
        return None
    if len(block) < BLOCK or _number(block[148:156]) not in _checksums(block):
        raise CorruptArchiveError("the tar is damaged or cut off")
    kind, name = block[156:157], _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    if kind == b"\0" and name.endswith("/"):  # a folder of the format before ustar
        kind = FOLDER
    size = 0 if kind in WITHOUT_DATA else _number(block[124:136])
    return _Header(kind, f"{prefix}/{name}" if prefix else name, size, block)


def _checksums(block: bytes) -> tuple[int, int]:
    """The checksums of a header, as unsigned and as signed bytes, which some writers used."""
    counted = block[:148] + b" " * 8 + block[156:]
    return sum(counted), sum(memoryview(counted).cast("b"))


def _number(field: bytes) -> int | None:
    """A number in octal digits, or in base 256 after a byte of 0x80; None if invalid."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _after_sparse_map(header: _Header, stored: Stored, at: int) -> int:
    """The offset of the bytes of an old GNU sparse file, after the blocks of its map."""
    more = header.block[482]
    while more:
        block = stored.read(at, BLOCK)
        if len(block) < BLOCK:
            raise CorruptArchiveError("the tar is damaged or cut off")
        more, at = block[504], at + BLOCK
    return at


def _entry(header: _Header, extension: _Extension, stored: Stored, at: int) -> Entry:
    refusal: CorruptArchiveError | EntryKindError | None = None
    if header.kind == SPARSE:
        at = _after_sparse_map(header, stored, at)
    size = header.size
    if extension.size is not None and header.kind not in WITHOUT_DATA:
        size = extension.size
    if size is None or at + size > stored.size:
        size = stored.size + 1 - at
        refusal = CorruptArchiveError("the entry is damaged or cut off")
    elif extension.damaged:
        refusal = CorruptArchiveError("the entry's extended header is damaged")
    elif header.kind not in REGULAR or extension.sparse:
        refusal = EntryKindError("the entry is a link, a device or sparse, not a file")
    return Entry(extension.path or header.name, at, size, refusal=refusal)


class _Extension:
    """The values of the extension headers before an entry."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.size: int | None = None
        self.sparse = False
        self.damaged = False
        self.headers = 0
        self._bytes = self._records = 0

    def add(self, header: _Header, stored: Stored, at: int) -> int:
        """Read one extension header; returns the offset of the next header.

        Raises:
            CorruptArchiveError: The archive is cut off.
        """
        if header.size is None or at + header.size > stored.size:
            raise CorruptArchiveError("the tar is damaged or cut off")
        self.headers, self._bytes = self.headers + 1, self._bytes + header.size
        if self.headers > MAX_EXTENSIONS or self._bytes > MAX_EXTENSION_BYTES:
            self.damaged = True
        elif header.kind == b"L":
            self.path = _text(bytes(stored.read(at, header.size)))
        elif header.kind in {b"x", b"X"}:  # global headers hold nothing that is needed
            self._add_records(bytes(stored.read(at, header.size)))
        return at + _padded(header.size)

    def _add_records(self, data: bytes) -> None:
        """Read records of `length key=value`; the decimal length is of the whole record."""
        at = 0
        while at < len(data) and data[at]:  # some writers end with zeros
            digits = data[at : at + 20].partition(b" ")[0]
            end = at + int(digits) if digits.isdigit() else 0
            key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            self._records += 1
            if not equals or data[end - 1 : end] != b"\n" or self._records > MAX_RECORDS:
                self.damaged = True
                return
            self._apply(key, value)
            at = end

    def _apply(self, key: bytes, value: bytes) -> None:
        if key == b"size":
            plain = value.isdigit() and len(value) <= 20
            self.size, self.damaged = (int(value), self.damaged) if plain else (None, True)
        elif key in {b"path", b"GNU.sparse.name"}:
            self.path = value.decode("utf-8", "surrogateescape")
        self.sparse |= key.startswith(b"GNU.sparse.")
