"""What zip and tar have in common: bytes that can be read anywhere, and entries in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from service.inference import Buffer
from service.uploads.upload import UploadError


class Stored(NamedTuple):
    """The bytes of an archive: a body in memory, or an open file."""

    size: int
    read_at: Callable[[int, int], Buffer]  # offset and count, both within the size

    @classmethod
    def of(cls, body: bytes) -> Stored:
        """A body in memory; what is read of it is not copied."""
        view = memoryview(body)
        return cls(len(body), lambda offset, count: view[offset : offset + count])

    def read(self, offset: int, count: int) -> Buffer:
        """`count` bytes from `offset`, or fewer at the end, whatever numbers an archive claims."""
        count = min(count, self.size - offset)
        return self.read_at(offset, count) if count > 0 else b""


class Entry(NamedTuple):
    """Where one entry is, and how it is stored."""

    name: str  # bytes that are no text are lone surrogates, as in names of files
    offset: int  # of a tar: of its bytes; of a zip: of the header before them
    size: int  # as stored
    method: int | None = None  # of a zip, APPNOTE.TXT 4.4.5; None: of a tar
    crc: int = 0
    refusal: UploadError | None = None  # why it is not read
