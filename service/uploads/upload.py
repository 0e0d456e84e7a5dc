"""Uploaded files, and the errors of bodies and archives before images are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from service.inference import Buffer


class UploadError(Exception):
    """The body, or one entry of it, is not accepted."""

    code: ClassVar[str] = "upload_error"


class MalformedMultipartError(UploadError):
    """The multipart body is damaged, or lacks the endpoint's fields."""

    code = "malformed_multipart"


class MediaTypeError(UploadError):
    """The body, or a part of it, has a media type that the endpoint does not accept."""

    code = "unsupported_media_type"


class CorruptArchiveError(UploadError):
    """A zip or tar is damaged; entries before the damage were answered."""

    code = "corrupt_archive"


class UnknownArchiveError(UploadError):
    """The body is neither a zip nor a plain tar."""

    code = "unknown_archive"


class TooManyEntriesError(UploadError):
    """More files than one request may hold."""

    code = "too_many_files"


class ArchiveTooLargeError(UploadError):
    """All entries together exceed the limit of inflated bytes; earlier ones were answered."""

    code = "archive_too_large"


class EntryTooLargeError(UploadError):
    """One file of a batch exceeds the limit for a radiograph."""

    code = "entry_too_large"


class EntryRatioError(UploadError):
    """An entry inflates more than the limit allows: a zip bomb."""

    code = "entry_ratio"


class EntryNameError(UploadError):
    """A name leads out of its folder, or is empty or not printable."""

    code = "entry_name"


class NestedArchiveError(UploadError):
    """An archive within the archive."""

    code = "nested_archive"


class EntryKindError(UploadError):
    """A link or device, an encrypted entry, or a compression that radiographs do not use."""

    code = "entry_kind"


class UnreadableFileError(UploadError):
    """A local file is not a regular file, or the system refuses to read it."""

    code = "unreadable_file"


@dataclass(frozen=True)
class Upload:
    """One file: its name, and its bytes or the error why it was refused."""

    name: str
    data: Buffer = field(default=b"", repr=False)
    error: UploadError | None = None
