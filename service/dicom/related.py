"""multipart/related, parsed while it arrives: each part is handed on as soon as it is complete.

python_multipart, which reads forms, refuses folded part headers. They are legal in MIME, and Java
libraries write them. The grammar is that of RFC 2046 5.1.1:

- Lines end with CR LF; a body with LF only has no part, and is refused.
- Text before the first delimiter and after the last one is skipped.
- A part may have no header fields, or no content.
- White space after a delimiter is skipped.
- Content-Length of a part means nothing: only a delimiter ends a part.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from service.uploads.multipart import options_of
from service.uploads.upload import MalformedMultipartError, MediaTypeError, TooManyEntriesError

DICOM = b"application/dicom"
MAX_BOUNDARY_BYTES = 256  # RFC 2046 allows 70; some programs send more
MAX_PREAMBLE_BYTES = 2**16
MAX_HEADER_BYTES = 2**13  # all header fields of a part
# Lines of the content that begin as a delimiter does. Programs choose boundaries that the content
# does not hold, and each such line costs time
MAX_LOOKALIKES = 1000

CRLF = b"\r\n"
PADDED_END = re.compile(rb"[ \t]{0,64}\r\n")  # of a delimiter's line
UNDECIDED = re.compile(rb"(?:-|[ \t]{0,64}\r?)\Z")  # more bytes may make it a delimiter
FOLD = re.compile(rb"\r\n[ \t]+")
FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass
class Part:
    """One part of a body."""

    media_type: bytes  # in lower case, without parameters; empty if the part names none
    data: bytearray = field(default_factory=bytearray, repr=False)
    too_large: bool = False  # its data were dropped


def boundary_of_related(content_type: str) -> bytes | None:
    """The boundary of a multipart/related body of DICOM objects; None: the body is one object.

    Raises:
        MediaTypeError: It is neither multipart/related of application/dicom nor application/dicom.
        MalformedMultipartError: It has no boundary, or one that is too long.

    References:
        DICOM PS3.18 8.7.3.5; RFC 2387. The parameter `type` may be missing, although it should not.
    """
    kind, options = options_of(content_type)
    if kind == DICOM:
        return None
    of, _, _ = options.get(b"type", DICOM).partition(b";")
    if kind != b"multipart/related" or of.strip().lower() != DICOM:
        accepted = 'multipart/related; type="application/dicom" or application/dicom'
        raise MediaTypeError(f"the body must be {accepted}")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        most = MAX_BOUNDARY_BYTES
        raise MalformedMultipartError(f"multipart/related needs a boundary of 1 to {most} bytes")
    return boundary


class Parser(Protocol):
    """Turns the chunks of a body into its parts."""

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""

    def feed(self, chunk: bytes) -> list[Part]:
        """Take the next bytes of the body; returns the parts that they complete."""

    def close(self) -> list[Part]:
        """The body has ended; returns parts that this completes."""


class OnePart:
    """Parser of a body that is one object, without multipart."""

    def __init__(self) -> None:
        self._part = Part(DICOM)

    @property
    def held_bytes(self) -> int:
        """See `Parser`."""
        return len(self._part.data)

    def feed(self, chunk: bytes) -> list[Part]:
        """See `Parser`."""
        self._part.data += chunk
        return []

    def close(self) -> list[Part]:
        """See `Parser`."""
        return [self._part]


class RelatedParser:
    """Incremental parser. Between two calls it holds one part that is not complete yet.

    Args:
        boundary: From `boundary_of_related`.
        max_parts: The most parts of a body.
        max_part_bytes: The largest part; the data of larger ones are dropped while they arrive.
    """

    def __init__(self, boundary: bytes, max_parts: int, max_part_bytes: int) -> None:
        self._delimiter = CRLF + b"--" + boundary
        self._max_parts = max_parts
        self._max_part_bytes = max_part_bytes
        self._buffer = CRLF  # the first delimiter may stand at the very beginning
        self._at = 0  # where the buffer is read next
        self._read: Callable[[], bool] = self._read_content
        self._part: Part | None = None  # None: before the first part
        self._preamble_bytes = self._lookalikes = self._parts = 0
        self._complete: list[Part] = []

    @property
    def held_bytes(self) -> int:
        """Bytes in memory: of the part that is not complete, and unread ones."""
        return len(self._buffer) - self._at + (len(self._part.data) if self._part else 0)

    def feed(self, chunk: bytes) -> list[Part]:
        """Parse the next bytes of the body; returns the parts that they complete.

        Raises:
            MalformedMultipartError: The body is damaged.
            TooManyEntriesError: It has more than `max_parts` parts.
        """
        self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        while self._read():
            pass
        complete, self._complete = self._complete, []
        return complete

    def close(self) -> list[Part]:
        """Check that the body has ended; no part is left.

        Raises:
            MalformedMultipartError: It has no part, or is cut off.
        """
        if not self._parts or self._read != self._skip:
            raise MalformedMultipartError("the multipart body has no part, or is cut off")
        return []

    def _read_content(self) -> bool:
        """Read to the next delimiter, or as far as none can begin; False: more bytes are needed."""
        buffer, at = self._buffer, self._buffer.find(self._delimiter, self._at)
        if at < 0:
            self._take(max(self._at, len(buffer) - len(self._delimiter) + 1))
            return False
        self._take(at)
        after = at + len(self._delimiter)
        if buffer.startswith(b"--", after):
            self._finish()
            self._read = self._skip
        elif line := PADDED_END.match(buffer, after):
            self._finish()
            self._begin()
            self._at = line.end() - len(CRLF)
            self._read = self._read_headers
        elif UNDECIDED.match(buffer, after):
            return False
        else:
            self._count_lookalike()
            self._take(after)
        return True

    def _read_headers(self) -> bool:
        """Read from the CR LF of the delimiter's line to that of the empty line."""
        end = self._buffer.find(CRLF + CRLF, self._at)
        if (len(self._buffer) if end < 0 else end) - self._at > MAX_HEADER_BYTES:
            raise MalformedMultipartError(f"a part with more than {MAX_HEADER_BYTES} header bytes")
        if end < 0:
            return False
        block = self._buffer[self._at + len(CRLF) : end]
        self._part = Part(media_type_of(block) if block else b"")
        # The empty line's CR LF belongs to the next delimiter if the part has no content
        self._at = end + len(CRLF)
        self._read = self._read_content
        return True

    def _skip(self) -> bool:
        """Read what follows the last delimiter."""
        self._at = len(self._buffer)
        return False

    def _take(self, end: int) -> None:
        """Add the buffer up to `end` to the part."""
        part, count = self._part, end - self._at
        if part is None:
            self._preamble_bytes += count
            if self._preamble_bytes > MAX_PREAMBLE_BYTES:
                raise MalformedMultipartError("no delimiter in the first bytes of the body")
        elif len(part.data) + count > self._max_part_bytes + len(CRLF):
            part.data, part.too_large = bytearray(), True
        elif not part.too_large:
            part.data += memoryview(self._buffer)[self._at : end]
        self._at = end

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooManyEntriesError(f"more than {self._max_parts} parts in one request")

    def _finish(self) -> None:
        if self._part is not None:
            del self._part.data[: len(CRLF)]  # of the empty line
            self._complete.append(self._part)
            self._part = None

    def _count_lookalike(self) -> None:
        self._lookalikes += 1
        if self._lookalikes > MAX_LOOKALIKES:
            raise MalformedMultipartError("too many lines that begin as a delimiter does")


def media_type_of(block: bytes) -> bytes:
    """The media type that the header fields of a part name, or nothing.

    Raises:
        MalformedMultipartError: These are no header fields.
    """
    found = b""
    for line in FOLD.sub(b" ", block).split(CRLF):
        name, colon, value = line.partition(b":")
        if not (colon and FIELD_NAME.fullmatch(name.rstrip(b" \t"))) or CONTROLS.search(value):
            raise MalformedMultipartError("a part with a damaged header field")
        if name.rstrip(b" \t").lower() == b"content-type":
            found, _ = options_of(value.strip(b" \t"))
    return found
