"""What a body holds: files, and what may be wrong with them before they are looked at as images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from service.inference import Buffer


class UploadError(Exception):
    """The body, or one entry of it, is not what the endpoint takes."""

    code: ClassVar[str] = "upload_error"


class MalformedMultipartError(UploadError):
    """Not a multipart body, or not the fields that the endpoint takes."""

    code = "malformed_multipart"


class CorruptArchiveError(UploadError):
    """A zip or tar that cannot be read to its end; entries before the damage were answered."""

    code = "corrupt_archive"


class UnknownArchiveError(UploadError):
    """The body is neither a zip nor a plain tar."""

    code = "unknown_archive"


class TooManyEntriesError(UploadError):
    """More files than one request may hold."""

    code = "too_many_files"


class ArchiveTooLargeError(UploadError):
    """All entries together inflate beyond the limit; those before were answered."""

    code = "archive_too_large"


class EntryTooLargeError(UploadError):
    """One file of a batch exceeds the limit for a radiograph."""

    code = "entry_too_large"


class EntryRatioError(UploadError):
    """An entry inflates as only a zip bomb does."""

    code = "entry_ratio"


class EntryNameError(UploadError):
    """A name that would leave its folder, or names none."""

    code = "entry_name"


class NestedArchiveError(UploadError):
    """An archive within the archive."""

    code = "nested_archive"


class EntryKindError(UploadError):
    """A link or device, an encrypted entry, or a compression that radiographs do not use."""

    code = "entry_kind"


class UnreadableFileError(UploadError):
    """A file of the command line that the operating system does not let us read."""

    code = "unreadable_file"


@dataclass(frozen=True)
class Upload:
    """One file: its name, and its bytes or why it was refused."""

    name: str
    data: Buffer = field(default=b"", repr=False)
    error: UploadError | None = None
