"""Folders that tests work on as archives."""

from __future__ import annotations

from pathlib import Path

from images import dicom, png, radiograph


def write_archive(folder: Path, images: int, side: int = 128) -> Path:
    """Different images, named 00000.dcm and so on, and two files that cannot be classified."""
    base = radiograph(side, side)
    for number in range(images):
        file = dicom(base + number % 50, SOPInstanceUID=f"1.2.{number}")
        (folder / f"{number:05d}.dcm").write_bytes(file)
    (folder / "cut.png").write_bytes(png(base)[:3000])
    (folder / "notes.txt").write_text("no image")
    return folder
