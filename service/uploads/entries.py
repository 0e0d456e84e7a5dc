"""What zip and tar have in common: the stored bytes of an archive, and its entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from service.inference import Buffer
from service.uploads.upload import UploadError


class Stored(NamedTuple):
    """The bytes of an archive: a body in memory, or an open file."""

    size: int
    read_at: Callable[[int, int], Buffer]  # takes an offset and a count, within the size

    @classmethod
    def of(cls, body: bytes) -> Stored:
        """A body in memory, of which reads are not copied."""
        view = memoryview(body)
        return cls(len(body), lambda offset, count: view[offset : offset + count])

    def read(self, offset: int, count: int) -> Buffer:
        """`count` bytes from `offset`, or fewer at the end; any offset is allowed."""
        count = min(count, self.size - offset)
        return self.read_at(offset, count) if count > 0 else b""


class Entry(NamedTuple):
    """The place of one entry, and how it is stored."""

    name: str  # bytes that are not UTF-8 are lone surrogates, as in file names
    offset: int  # in a tar: of its bytes; in a zip: of its local header
    size: int  # stored bytes, perhaps compressed
    method: int | None = None  # compression method of a zip, APPNOTE.TXT 4.4.5; None: a tar
    crc: int = 0
    refusal: UploadError | None = None  # the reason if it must not be read
