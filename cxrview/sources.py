"""Sources of images: paths, bytes, pydicom Datasets and arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydicom

from service.imaging import CorruptImageError, sniff
from service.uploads.files import LARGEST_FILE, UnreadableEntry, files_below, read_regular
from service.uploads.upload import UnreadableFileError

# A path names a file; a folder stands for all files below it
Source = str | os.PathLike[str] | bytes | pydicom.Dataset | npt.NDArray[Any]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
Read = bytes | npt.NDArray[Any]


def each_of(sources: Iterable[Source]) -> Iterator[tuple[str, Source | UnreadableEntry]]:
    """Each source with its name: the path, or for other sources their number, from 0.

    Raises:
        TypeError: `sources` is one source, and not several.
    """
    if isinstance(sources, (str, bytes, os.PathLike, np.ndarray, pydicom.Dataset)):
        raise TypeError("classify_many takes several: put the one into a list")
    return _each_of(sources)


def _each_of(sources: Iterable[Source]) -> Iterator[tuple[str, Source | UnreadableEntry]]:
    for number, source in enumerate(sources):
        if not isinstance(source, (str, os.PathLike)):
            yield str(number), source
            continue
        path = os.fspath(source)
        if not os.path.lexists(path):
            yield shown(path), UnreadableEntry(path, "no such file or folder")
            continue
        for found in files_below(path):
            yield shown(found.path if isinstance(found, UnreadableEntry) else found), found


def shown(path: str) -> str:
    """A path with bytes that are not UTF-8 escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read(source: object, max_bytes: int = LARGEST_FILE) -> Read:
    """The bytes of a file, or the array.

    Args:
        source: A Source, or an UnreadableEntry.
        max_bytes: The largest file.

    Raises:
        ImageError: By its first bytes, the file is not an image; or a Dataset cannot be written.
        UnreadableFileError, EntryTooLargeError: The file cannot be read, or is too large.
        TypeError: `source` is of another type.
    """
    if isinstance(source, (bytes, np.ndarray)):
        return source
    if isinstance(source, pydicom.Dataset):
        return _written(source)
    if isinstance(source, UnreadableEntry):
        raise UnreadableFileError(source.reason)
    if not isinstance(source, (str, os.PathLike)):
        kinds = "a path, bytes, a pydicom Dataset or an array"
        raise TypeError(f"{type(source).__name__} cannot be classified; {kinds} can")
    try:
        return read_regular(os.fspath(source), max_bytes, sniff)
    except OSError as error:
        raise UnreadableFileError(error.strerror or str(error)) from None


def _written(dataset: pydicom.Dataset) -> bytes:
    """A Dataset as a DICOM file; without a transfer syntax, its pixels must be uncompressed.

    Raises:
        CorruptImageError: pydicom cannot write it.
    """
    buffer = io.BytesIO()
    try:
        meta = getattr(dataset, "file_meta", None)
        if meta is not None and "TransferSyntaxUID" in meta:
            pydicom.dcmwrite(buffer, dataset)
        else:
            pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    except Exception as error:  # by its values, pydicom raises errors of many classes
        raise CorruptImageError(
            "the Dataset cannot be written as DICOM: an element has a value of another type"
        ) from error
    return buffer.getvalue()
