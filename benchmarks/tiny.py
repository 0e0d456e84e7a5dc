"""A million files: DICOM objects of 32 x 32 pixels, each with a name of its own, in thousands."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import dicom  # lies beside the tests

from model_store import ModelCard
from service.imaging import Origin, Radiograph, ViewHeader
from service.inference import Image, usable_cpus

OF_A_FOLDER = 1000
FIRST = 10**20
UID = re.compile(rb"2\.25\.(\d{21})")
# Folders of the sizes that are measured, each within the next larger one
NESTED = (1000, 10_000, 100_000, 1_000_000, 10_000_000)


def folder_of(archive: Path, images: int) -> Path:
    """The folder in which so many files are."""
    larger = [each for each in NESTED if each > images]
    for each in reversed(larger):
        archive = archive / f"{each}"
    return archive / f"{images}"


def fill(archive: Path, images: int) -> None:
    """Write the files, by as many processes as there are cores."""
    pixels = (np.arange(1024, dtype=np.uint16) % 1000).reshape(32, 32)
    data = dicom(pixels, SOPInstanceUID=f"2.25.{FIRST}", StationName="CR1")
    thousands = range(0, images, OF_A_FOLDER)
    with ProcessPoolExecutor(usable_cpus()) as writers:
        for _ in writers.map(partial(_write, archive, images, data), thousands):
            pass


def _write(archive: Path, images: int, data: bytes, first: int) -> None:
    size = min(each for each in NESTED if each > first)
    folder = folder_of(archive, size) / f"{first // OF_A_FOLDER:06d}"
    folder.mkdir(parents=True)
    old = b"%d" % FIRST
    for number in range(first, min(images, first + OF_A_FOLDER)):
        path = folder / f"{number:09d}.dcm"
        path.write_bytes(data.replace(old, b"%d" % (FIRST + number)))


class Stub:
    """Answers at once: a PFI and a header that follow from the number in the file's name."""

    def __init__(self, card: ModelCard) -> None:
        size = card.preprocess.size
        self._tensor = np.zeros((1, size, size), np.uint8)

    def submit(self, image: Image) -> None:
        """See `Pipeline.submit`."""
        assert image.data is not None
        found = UID.search(bytes(image.data[:1024]))
        assert found is not None
        number = int(found[1])
        uid = found[0].decode()
        image.data = None
        image.radiograph = Radiograph(
            self._tensor,
            "dicom",
            ViewHeader(("PA", "AP", "LL", None)[number % 4]),
            Origin(
                f"{uid}.1",
                f"{uid}.2",
                "DX",
                f"XRAY{number % 200}",
                f"{2016 + number % 10}-{1 + number % 12:02d}",
            ),
            uid,
            "1.2.840.10008.1.2.1",
        )
        image.answer.set_result((number * 2654435761 % 2**32) / 2**32)
