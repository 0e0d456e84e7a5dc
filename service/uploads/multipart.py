"""Multipart forms, parsed in memory while they arrive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.uploads.upload import (
    EntryTooLargeError,
    MalformedMultipartError,
    TooManyEntriesError,
    Upload,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Limits of one part's headers: a name of 4,096 bytes, and the fields of browsers and libraries
MAX_HEADERS, MAX_HEADER_BYTES = 8, 2**13
MAX_PARAMETERS = 32  # some names hold semicolons; parsing is quadratic in their number
MAX_OTHER_PARTS = 100  # parts in addition to the files, such as fields that are skipped


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/form-data body; None for any other body.

    Raises:
        MalformedMultipartError: It is multipart/form-data without a boundary, or with too many
            parameters.
    """
    if not content_type.lower().lstrip().startswith("multipart/"):
        return None  # the usual case, without parsing
    kind, options = options_of(content_type)
    if kind != b"multipart/form-data":
        return None
    if not options.get(b"boundary"):
        raise MalformedMultipartError("multipart/form-data without a boundary")
    return options[b"boundary"]


async def read_form(
    read: Callable[[Callable[[bytes], object]], Awaitable[None]],
    boundary: bytes,
    field_name: str,
    max_files: int,
    max_file_bytes: int,
) -> list[Upload]:
    """The files of one form field, in memory; one that is too large carries its error.

    Starlette's own form parser is not used: it writes parts over 1 MB to disk and does not limit
    them.

    Args:
        read: Reads the body, and passes its chunks to its argument.
        boundary: From `boundary_of`.
        field_name: The field of the files; other fields are skipped.
        max_files: The most files of that field.
        max_file_bytes: The largest file.

    Raises:
        MalformedMultipartError: The body is damaged, or has no such field.
        TooManyEntriesError: It has more than `max_files` files, or too many other parts.
    """
    form = _Form(field_name.encode(), max_files, max_file_bytes)
    try:
        parser = MultipartParser(
            boundary,
            callbacks=form.callbacks(),
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        # Text before the first boundary (RFC 2046 5.1.1) becomes a part that is skipped
        parser.write(b"--%b\r\n\r\n\r\n" % boundary)
        await read(_limited(parser, boundary, max_files + MAX_OTHER_PARTS))
        parser.finalize()
    except FormParserError as error:
        raise MalformedMultipartError("the multipart body is damaged or cut off") from error
    if not form.uploads or not form.ended:
        raise MalformedMultipartError(f"the multipart body has no complete field {field_name!r}")
    return form.uploads


def _limited(parser: MultipartParser, boundary: bytes, most: int) -> Callable[[bytes], object]:
    """A `write` for the parser that limits boundary-like lines, because it is slow at them."""
    line = b"\r\n--" + boundary
    left, end = most, b""

    def write(chunk: bytes) -> None:
        nonlocal left, end
        seen = end + chunk
        left, end = left - seen.count(line), seen[1 - len(line) :]
        if left < 0:
            raise TooManyEntriesError(f"more than {most} parts in one request")
        parser.write(chunk)

    return write


def options_of(header: str | bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The value of a header field and its parameters, names and value in lower case.

    Raises:
        MalformedMultipartError: It has too many parameters.
    """
    text = header if isinstance(header, str) else header.decode("latin-1")
    if text.count(";") > MAX_PARAMETERS:
        raise MalformedMultipartError(f"a header with more than {MAX_PARAMETERS} semicolons")
    return parse_options_header(text)


class _Form:
    """Collects the parts of one field from the parser's callbacks."""

    def __init__(self, field_name: bytes, max_files: int, max_file_bytes: int) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._field_name = field_name
        self._max_files = max_files
        self._max_file_bytes = max_file_bytes
        self._header, self._value, self._disposition = b"", b"", b""
        self._wanted = False
        self._file_name = ""
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._data = b"", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = options_of(self._disposition)
        self._wanted = options.get(b"name") == self._field_name
        fallback = f"{self._field_name.decode()}[{len(self.uploads)}]"
        self._file_name = options.get(b"filename", b"").decode(errors="replace") or fallback
        if self._wanted and len(self.uploads) >= self._max_files:
            raise TooManyEntriesError(f"more than {self._max_files} files in one request")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted and len(self._data) <= self._max_file_bytes:
            self._data += data[start:end]

    def _end(self) -> None:
        if not self._wanted:
            return
        if len(self._data) > self._max_file_bytes:
            error = EntryTooLargeError(f"the file exceeds {self._max_file_bytes} bytes")
            self.uploads.append(Upload(self._file_name, error=error))
        else:
            self.uploads.append(Upload(self._file_name, self._data))

    def _finish(self) -> None:
        self.ended = True
