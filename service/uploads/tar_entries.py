"""The entries of a tar: ustar, pax and GNU, read header by header.

`tarfile` is not used: on Pythons that we admit its headers take quadratic time and hold the
interpreter's lock meanwhile (CVE-2024-6232), they recurse, and it takes damage for an end.

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
# pax (X: of Solaris), pax global, GNU long name, GNU long link
EXTENSIONS = {b"x", b"X", b"g", b"L", b"K"}

# Before one entry, all extensions together. Names have 4,096 bytes at most, extended attributes
# 64 KiB each; real entries have up to three extensions, and up to forty records
MAX_EXTENSION_BYTES = 2**20
MAX_EXTENSIONS = 16
MAX_RECORDS = 128


def tar_entries(stored: Stored, most: int) -> Iterator[Entry]:
    """All entries but folders, in order.

    Raises:
        CorruptArchiveError: It cannot be read on; all entries before the damage have been given.
        TooManyEntriesError: More than `most`, folders included.
    """
    at, count, extension = 0, 0, _Extension()
    while (header := _header_at(stored, at)) is not None:
        if count == most:
            raise TooManyEntriesError(f"the archive has more than {most} entries")
        at += BLOCK
        if header.kind in EXTENSIONS:
            at = extension.add(header, stored, at)
            count += extension.headers > MAX_EXTENSIONS  # a chain of them is work, too
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
    size: int | None  # None: no number
    block: bytes


def _header_at(stored: Stored, at: int) -> _Header | None:
    """The header there; None at the end. Many writers leave out the zeros that mark it."""
    if at == stored.size:
        return None
    block = bytes(stored.read(at, BLOCK))
    if not any(block) and block:
        return None
    if len(block) < BLOCK or _number(block[148:156]) not in _checksums(block):
        raise CorruptArchiveError("the tar is damaged or cut off")
    kind, name = block[156:157], _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    if kind == b"\0" and name.endswith("/"):  # before ustar had types
        kind = FOLDER
    size = 0 if kind in WITHOUT_DATA else _number(block[124:136])
    return _Header(kind, f"{prefix}/{name}" if prefix else name, size, block)


def _checksums(block: bytes) -> tuple[int, int]:
    """Of the header with spaces in place of its checksum; some writers added signed bytes."""
    counted = block[:148] + b" " * 8 + block[156:]
    return sum(counted), sum(memoryview(counted).cast("b"))


def _number(field: bytes) -> int | None:
    """Octal digits, or base 256 after a byte of 0x80; None for what is neither, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _after_sparse_map(header: _Header, stored: Stored, at: int) -> int:
    """Where the bytes of an old GNU sparse file begin: blocks of its map may come first."""
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
    """What the headers before an entry say of it."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.size: int | None = None
        self.sparse = False
        self.damaged = False
        self.headers = 0
        self._bytes = self._records = 0

    def add(self, header: _Header, stored: Stored, at: int) -> int:
        """One more, whose bytes are there; returns where the next header is.

        Raises:
            CorruptArchiveError: It is cut off.
        """
        if header.size is None or at + header.size > stored.size:
            raise CorruptArchiveError("the tar is damaged or cut off")
        self.headers, self._bytes = self.headers + 1, self._bytes + header.size
        if self.headers > MAX_EXTENSIONS or self._bytes > MAX_EXTENSION_BYTES:
            self.damaged = True
        elif header.kind == b"L":
            self.path = _text(bytes(stored.read(at, header.size)))
        elif header.kind in {b"x", b"X"}:  # global ones say nothing that is needed here
            self._add_records(bytes(stored.read(at, header.size)))
        return at + _padded(header.size)

    def _add_records(self, data: bytes) -> None:
        """Lines of `length key=value`; the length is decimal, and of the whole line."""
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
