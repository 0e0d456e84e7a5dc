"""What a body holds: one file, the parts of a multipart form, or the entries of an archive."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

CHUNK = 2**20


class UploadError(Exception):
    """The body, or one entry of it, is not what the endpoint takes."""


class MalformedMultipartError(UploadError):
    """Not a multipart body, or not the fields that the endpoint takes."""


class CorruptArchiveError(UploadError):
    """A zip or tar that cannot be read to its end; entries before the damage were answered."""


class UnknownArchiveError(UploadError):
    """The body is neither a zip nor a plain tar."""


class TooManyEntriesError(UploadError):
    """More files than one request may hold."""


class EntryTooLargeError(UploadError):
    """One file of a batch exceeds the limit for a radiograph."""


class EntryRatioError(UploadError):
    """An entry inflates as only a zip bomb does."""


class EntryNameError(UploadError):
    """A name that would leave its folder, or names none."""


class NestedArchiveError(UploadError):
    """An archive within the archive."""


class EntryKindError(UploadError):
    """A link or device, an encrypted entry, or a compression that radiographs do not use."""


class UnreadableFileError(UploadError):
    """A file of the command line that the operating system does not let us read."""


@dataclass(frozen=True)
class Upload:
    """One file: its name, and its bytes or why it was refused."""

    name: str
    data: bytes = field(default=b"", repr=False)
    error: UploadError | None = None


@dataclass(frozen=True)
class ArchiveLimits:
    """See `Settings`."""

    entries: int
    entry_bytes: int
    ratio: float


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/form-data body; None for any other body.

    Raises:
        MalformedMultipartError: It is multipart/form-data, but names no boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return None
    if not options.get(b"boundary"):
        raise MalformedMultipartError("multipart/form-data without a boundary")
    return options[b"boundary"]


async def read_form(
    chunks: AsyncIterator[bytes],
    boundary: bytes,
    field_name: str,
    max_files: int,
    max_file_bytes: int,
) -> list[Upload]:
    """The files of one form field, in memory; one that is too large carries its error.

    Starlette's own form parser is not used: it writes parts over 1 MB to disk and does not limit
    them.

    Raises:
        MalformedMultipartError: The body is damaged, or holds no such field.
        TooManyEntriesError: More than `max_files` files.
    """
    form = _Form(field_name.encode(), max_files, max_file_bytes)
    try:
        parser = MultipartParser(boundary, callbacks=form.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise MalformedMultipartError("the multipart body is damaged or cut off") from error
    if not form.uploads or not form.ended:
        raise MalformedMultipartError(f"the multipart body has no complete field {field_name!r}")
    return form.uploads


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
        _, options = parse_options_header(self._disposition)
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
            self.uploads.append(Upload(self._file_name, bytes(self._data)))

    def _finish(self) -> None:
        self.ended = True


def read_archive(body: bytes, limits: ArchiveLimits) -> Iterator[Upload]:
    """The files of a zip or plain tar, one at a time; a refused entry does not end the others.

    Raises (also while iterating):
        UnknownArchiveError: Neither zip nor tar, by content.
        CorruptArchiveError: It cannot be read on.
        TooManyEntriesError: More entries than the limit.
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
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield _checked(info.filename, partial(_inflate, archive, info, limits))
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise CorruptArchiveError("the zip is damaged or cut off") from error


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits) -> bytes:
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
        _check_name(name)
        data = read()
        if data.startswith(b"PK\x03\x04") or data[257:262] == b"ustar":
            raise NestedArchiveError("an archive within the archive; send it by itself")
    except UploadError as error:
        return Upload(name, error=error)
    return Upload(name, data)


def _check_name(name: str) -> None:
    """Names are only echoed here, but whoever unpacks by our answers must be safe too."""
    pure = PurePosixPath(name), PureWindowsPath(name)
    if any(path.is_absolute() or path.drive or ".." in path.parts for path in pure):
        raise EntryNameError("the name leaves the archive's folder")
    if not name.isprintable():
        raise EntryNameError("the name holds control characters")
