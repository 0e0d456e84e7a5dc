"""Recognise other file formats that are sent by mistake, so that the error can name them."""

from __future__ import annotations

import re

import numpy as np

START_BYTES = 1024  # enough to recognise the format

# Offset, bytes and name
MAGIC = (
    (0, b"%PDF", "PDF"),
    (0, b"\x89PNG\r\r\n", "PNG that was transferred as text"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (8, b"WEBP", "WebP"),
    (8, b"AVI ", "AVI"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyp", "MP4 or QuickTime"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"P5\n", "PGM"),
    (0, b"P6\n", "PPM"),
    (0, b"NRRD", "NRRD"),
    (0, b"ObjectType = Image", "MetaImage"),
    (344, b"n+1\0", "NIfTI"),
    (344, b"ni1\0", "NIfTI"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"PAR1", "Parquet"),
    (257, b"ustar", "tar"),
    (0, b"7z\xbc\xaf", "7z"),
    (0, b"Rar!", "RAR"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"{\\rtf", "RTF"),
    (0, b"MSH|", "HL7"),
)
# The size of the stretch that is searched first; and the least number of line feeds in a file, and
# of different bytes before them. Fewer may be a pattern of pixels: those of the value 2573 are a
# carriage return and a line feed
STRETCH_BYTES, FEEDS, DIFFERENT = 2**14, 16, 8
CARRIAGE_RETURN, LINE_FEED = b"\r\n"
# gzip files hold the name of the original file
GZIP, NIFTI_GZIP = b"\x1f\x8b", re.compile(rb"\.nii\0", re.IGNORECASE)
# Texts, after a byte order mark and white space
TEXTS = (
    (re.compile(rb'[\[{].*"[0-9A-Fa-f]{8}"\s*:\s*\{\s*"(vr|Value)"', re.DOTALL), "DICOM JSON"),
    (re.compile(rb'[\[{]\s*("|\{|\[|\]|\})'), "JSON"),
    (re.compile(rb"<.*<NativeDicomModel|<NativeDicomModel", re.DOTALL), "DICOM XML"),
    (re.compile(rb"<svg|<.*<svg", re.DOTALL | re.IGNORECASE), "SVG"),
    (re.compile(rb"<!doctype html|<html", re.IGNORECASE), "HTML"),
    (re.compile(rb"<\?xml"), "XML"),
)


def name_of(data: bytes | bytearray | memoryview) -> str | None:
    """The name of the format; None if it is unknown."""
    start = bytes(data[:START_BYTES])
    for at, magic, name in MAGIC:
        if start.startswith(magic, at):
            return name
    if start.startswith(GZIP):
        return "NIfTI (gzip)" if NIFTI_GZIP.search(start) else "gzip"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((name for pattern, name in TEXTS if pattern.match(text)), None)


def was_sent_as_text(data: bytes | bytearray | memoryview) -> bool:
    """Whether a transfer in text mode has put a carriage return before each line feed.

    A stretch in the middle is searched first, because in nearly all files it has a line feed
    without one.
    """
    middle = max(0, len(data) - STRETCH_BYTES) // 2
    stretch = bytes(data[middle : middle + STRETCH_BYTES])
    if stretch.count(b"\n", 1) > stretch.count(b"\r\n"):
        return False
    values = np.frombuffer(data, np.uint8)
    feeds = 2 + np.flatnonzero(values[2:] == LINE_FEED)
    return (
        len(feeds) >= FEEDS
        and bool((values[feeds - 1] == CARRIAGE_RETURN).all())
        and len(np.unique(values[feeds - 2])) >= DIFFERENT
    )
