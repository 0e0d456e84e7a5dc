"""Read untrusted files of a file system: regular files only, within a limit of bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from service.uploads.upload import EntryTooLargeError, UnreadableFileError

START_BYTES = 1024  # enough to recognise the format
LARGEST_FILE = 64 * 2**20  # bytes; uncompressed CR reaches 30 MB, and memory is limited


def read_regular(
    path: str | Path, max_bytes: int, look: Callable[[bytes], object] | None = None
) -> bytes:
    """The whole of a regular file.

    Args:
        path: Links are followed.
        max_bytes: The largest file.
        look: Called with the first `START_BYTES` before the rest is read; may raise.

    Raises:
        UnreadableFileError: It is a pipe, a device or a folder.
        EntryTooLargeError: It is larger than `max_bytes`; only its start is read.
        OSError: The system does not let us read it.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  # before opening, which may have effects on a device
        raise UnreadableFileError("it is a folder, a pipe or a device, not a file")
    # O_NONBLOCK, in case a pipe has replaced the file since
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if look is not None:
            look(read_whole(descriptor, START_BYTES))
        if size > max_bytes:
            raise EntryTooLargeError(f"the file exceeds {max_bytes} bytes")
        return read_whole(descriptor, size)
    finally:
        os.close(descriptor)


def read_whole(descriptor: int, count: int, offset: int = 0) -> bytes:
    """`count` bytes from `offset`, or fewer at the end; threads may share the descriptor."""
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class UnreadableEntry(NamedTuple):
    """A path that cannot be read or listed, and why."""

    path: str
    reason: str


def files_below(path: str) -> Iterator[str | UnreadableEntry]:
    """The path of a file, or of all files below a folder, without hidden ones.

    The files of each folder come before those of its subfolders; both are sorted. Links to folders
    are followed once, unless they lead back to a folder that contains them. Pipes and devices are
    given like files; reading them fails.

    Raises:
        FileNotFoundError: There is no such path.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no such file or folder: {path}")
    if not os.path.isdir(path):  # noqa: PTH112  # `Path.is_dir` raises without permission
        yield path
        return
    followed: set[tuple[int, int]] = set()
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(path, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            above |= {_entered(folder, above, followed)}
            files, folders = _listed(folder)
        except OSError as error:
            yield UnreadableEntry(folder, error.strerror or str(error))
            continue
        yield from files
        waiting += [(each, above) for each in reversed(folders)]


def _entered(
    folder: str, above: frozenset[tuple[int, int]], followed: set[tuple[int, int]]
) -> tuple[int, int]:
    """The device and inode of a folder.

    Raises:
        OSError: It is a link that was followed already, or that leads back to a folder above it.
    """
    itself, target = Path(folder).lstat(), Path(folder).stat()
    if stat.S_ISLNK(itself.st_mode):
        if (itself.st_dev, itself.st_ino) in followed:
            raise OSError(errno.ELOOP, "the link has been followed already, under another path")
        followed.add((itself.st_dev, itself.st_ino))
    if (target.st_dev, target.st_ino) in above:
        raise OSError(errno.ELOOP, "the link leads back to a folder that it is in")
    return target.st_dev, target.st_ino


def _listed(folder: str) -> tuple[list[str], list[str]]:
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # for example a link to itself; reading it reports the error
                is_folder = False
            (folders if is_folder else files).append(entry.path)
    return sorted(files), sorted(folders)
