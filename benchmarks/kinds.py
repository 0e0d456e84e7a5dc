"""Real radiographs as the kinds of DICOM objects that archives hold, and an Orthanc for them."""

from __future__ import annotations

import csv
import io
import json
import random
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import dicom  # these lie beside the tests, as above
from orthanc_settings import write_settings

Array = npt.NDArray[Any]
Attributes = dict[str, Any]

ROOT = "1.2.826.0.1.3680043.8.498.77"
DAY = "20240501"
GRAIN = 10.0  # of 4096 grey levels
WHITE = 65535
START_SECONDS = 30


class Radiograph(NamedTuple):
    """One picture with its label."""

    name: str
    view: str
    grey: Image.Image  # 8 bits


class Kind(NamedTuple):
    """How pixels of 12 bits are stored: pixels, transfer syntax, attributes."""

    pixels: Callable[[Array], Array]
    syntax: str = uid.ExplicitVRLittleEndian
    attributes: Callable[[Array], Attributes] = lambda _: {}


def _window(pixels: Array) -> Attributes:
    """As a detector proposes it: without the darkest and brightest twentieth."""
    low, high = np.percentile(pixels, (5, 95))
    return {"WindowCenter": f"{(low + high) / 2:.0f}", "WindowWidth": f"{high - low + 1:.0f}"}


def _windowed(pixels: Array) -> Array:
    """What an archive shows that applies the window."""
    low, high = np.percentile(pixels, (5, 95))
    shown: Array = pixels.clip(low, high).astype(np.uint16)
    return shown


def _collimated(pixels: Array, padding: int) -> Array:
    """With the border set to Pixel Padding Value."""
    found = pixels.copy()
    rows, columns = (side // 16 for side in pixels.shape)
    inside = np.zeros(pixels.shape, bool)
    inside[rows:-rows, columns:-columns] = True
    found[~inside] = padding
    return found


def _hot(pixels: Array) -> Array:
    """A seventh of the range, and a marker of lead that has the rest."""
    found = 300 + pixels // 7
    found[8:40, 8:24] = 4095
    return found


def _same(pixels: Array) -> Array:
    return pixels


KINDS: dict[str, Kind] = {
    "12 bit": Kind(_same),
    "12 bit, window": Kind(_same, attributes=_window),
    "window applied": Kind(_windowed),
    "MONOCHROME1, window": Kind(
        lambda pixels: 4095 - pixels,
        attributes=lambda pixels: (
            _window(4095 - pixels)
            | {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
        ),
    ),
    "8 bit": Kind(lambda pixels: (pixels >> 4).astype(np.uint8)),
    "JPEG baseline": Kind(lambda pixels: (pixels >> 4).astype(np.uint8), uid.JPEGBaseline8Bit),
    "JPEG lossless": Kind(_same, uid.JPEGLosslessSV1),
    "JPEG 2000 lossless": Kind(_same, uid.JPEG2000Lossless),
    "lead marker": Kind(_hot),
    "Pixel Padding 0": Kind(
        lambda pixels: _collimated(pixels + 1000, 0), attributes=lambda _: {"PixelPaddingValue": 0}
    ),
    "Pixel Padding 4095": Kind(
        lambda pixels: _collimated(pixels, 4095), attributes=lambda _: {"PixelPaddingValue": 4095}
    ),
    "Pixel Padding 65535": Kind(
        lambda pixels: _collimated(pixels, WHITE),
        attributes=lambda _: {"PixelPaddingValue": WHITE},
    ),
    "negative slope": Kind(
        lambda pixels: 4095 - pixels,
        attributes=lambda _: {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
    ),
    "MONOCHROME2, INVERSE": Kind(
        lambda pixels: 4095 - pixels, attributes=lambda _: {"PresentationLUTShape": "INVERSE"}
    ),
}

# Archives that apply a window, which Orthanc does not, show this of that
SHOWN_OF = {"window applied": "12 bit"}


def objects(picture: Radiograph, number: int, enlarge: int, names: Sequence[str]) -> list[bytes]:
    """The picture as each kind, at the size and depth of a detector, as Part 10 files."""
    width, height = (enlarge * side for side in picture.grey.size)
    large = picture.grey.convert("F").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).normal(0, GRAIN, (height, width))
    pixels = np.rint(np.asarray(large) * 16 + grain).clip(0, 4095).astype(np.uint16)
    found = []
    for at, name in enumerate(names):
        kind = KINDS[name]
        series = f"{ROOT}.{number}.1"
        instance = f"{series}.{at + 1}"
        found.append(
            dicom(
                kind.pixels(pixels),
                kind.syntax,
                StudyInstanceUID=f"{ROOT}.{number}",
                SeriesInstanceUID=series,
                SOPInstanceUID=instance,
                MediaStorageSOPInstanceUID=instance,
                StudyDate=DAY,
                **kind.attributes(pixels),
            )
        )
    return found


def radiographs(path: Path, most: int) -> list[Radiograph]:
    """Of a zip with manifest.csv beside it, or a folder of files that begin with their view.

    Half of them laterals, or all that there are, drawn with a fixed seed.
    """
    found = list(_of_zip(path) if path.suffix == ".zip" else _of_folder(path))
    random.Random(1).shuffle(found)
    laterals = [one for one in found if one[1] == "lateral"][: most // 2]
    frontals = [one for one in found if one[1] == "frontal"][: most - len(laterals)]
    return [Radiograph(name, view, _grey(data)) for name, view, data in laterals + frontals]


def _grey(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("L")


def _of_zip(path: Path) -> Iterator[tuple[str, str, bytes]]:
    with (path.parent / "manifest.csv").open(newline="") as file, zipfile.ZipFile(path) as archive:
        for row in csv.DictReader(file):
            yield row["file"], row["view"], archive.read(row["file"])


def _of_folder(path: Path) -> Iterator[tuple[str, str, bytes]]:
    for file in sorted(path.glob("*.jpg")):
        yield file.name, file.name.partition("-")[0], file.read_bytes()


@dataclass(frozen=True)
class Archive:
    """An Orthanc with nothing in it."""

    root: str

    @property
    def address(self) -> str:
        """Of DICOMweb."""
        return f"{self.root}/dicom-web"

    @property
    def version(self) -> str:
        """Of Orthanc, and of its plugins."""
        with urlopen(f"{self.root}/system", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return f"Orthanc {found['Version']}"

    def store(self, instance: bytes) -> str:
        """Returns the name that Orthanc gives it."""
        with urlopen(Request(f"{self.root}/instances", instance), timeout=60) as answer:
            name: str = json.load(answer)["ID"]
        return name

    def delete(self, name: str) -> None:
        """So that thousands do not fill the disk."""
        request = Request(f"{self.root}/instances/{name}", method="DELETE")
        urlopen(request, timeout=60).close()


@contextmanager
def orthanc(program: Path, plugins: Sequence[Path], folder: Path) -> Iterator[Archive]:
    """Serve until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = write_settings(folder, port, plugins)
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen([program, settings], stdout=output, stderr=output)
    try:
        _await(f"http://127.0.0.1:{port}/system", process, log)
        yield Archive(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urlopen(url, timeout=5).close()
        except URLError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return
