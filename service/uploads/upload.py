"""What a body holds: files, and what may be wrong with them before they are looked at as images."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.inference import Buffer


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


class ArchiveTooLargeError(UploadError):
    """All entries together inflate beyond the limit; those before were answered."""


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
    data: Buffer = field(default=b"", repr=False)
    error: UploadError | None = None
