"""One radiograph has one PFI, however it is stored: the network's view of the codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from images import CODECS, NATIVE, dicom, png
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from model_store import ModelVersion
from service.imaging import image_to_tensor
from service.imaging.dicom import read_dicom
from service.inference import Network, open_network

TOLERANCE = 0.01  # of PFI


@pytest.fixture(scope="module")
def network(version: ModelVersion) -> Network:
    return open_network(version)


def all_files(pixels: np.ndarray) -> dict[str, bytes]:
    """The picture in every transfer syntax, as PNG of 16 bits and as PNG of 8."""
    deep = pixels.astype(np.float64) - pixels.min()
    twelve = np.rint(deep * (4095 / deep.max())).astype(np.uint16)
    eight = (twelve >> 4).astype(np.uint8)
    files = {"PNG16": png(twelve << 4), "PNG8": png(eight)}
    for syntax in (*NATIVE, uid.RLELossless, *CODECS):
        stored = eight if syntax == uid.JPEGBaseline8Bit else twelve
        files[uid.UID(syntax).keyword] = dicom(stored, syntax)
    return files


def largest_difference(pixels: np.ndarray, network: Network) -> tuple[float, str]:
    """How far apart two files of one picture are, and between which."""
    spec = network.version.card.preprocess
    files = all_files(pixels)
    tensors = np.stack([image_to_tensor(data, spec) for data in files.values()])
    answers = np.concatenate([network.run(part) for part in np.array_split(tensors, 3)])
    pfi = dict(zip(files, answers, strict=True))
    low, high = min(pfi, key=pfi.__getitem__), max(pfi, key=pfi.__getitem__)
    return float(pfi[high] - pfi[low]), f"{low} {pfi[low]:.4f}, {high} {pfi[high]:.4f}"


@pytest.mark.parametrize("name", ["frontal-0048.jpg", "lateral-0054.jpg"])
def test_bundled_radiographs(network: Network, name: str) -> None:
    """A frontal and a lateral, at twice their size so that JPEG 2000 is decoded at reduced size."""
    image = Image.open(DATA / name)
    pixels = np.asarray(image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC))
    difference, between = largest_difference(pixels, network)
    assert difference < TOLERANCE, between


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_computed_radiographs(network: Network, name: str) -> None:
    """Two CR of the NEMA compression samples: as found in four files each, and stored anew."""
    spec = network.version.card.preprocess
    found = [
        Path(get_testdata_file(f"{name}_{kind}.dcm", download=False)).read_bytes()
        for kind in ("UNCR", "UNCI", "J2KR", "J2KI")
    ]
    answers = network.run(np.stack([image_to_tensor(data, spec) for data in found]))
    assert np.ptp(answers) < TOLERANCE, answers
    decoded = read_dicom(found[0], 2**31)
    difference, between = largest_difference(-decoded.pixels.astype(int), network)
    assert difference < TOLERANCE, between


ORIGINALS = [
    "wg04-rg1-jpeg2000.dcm",
    "orthanc-monochrome1-jpeg.dcm",
    *(f"clinic-{view}-16bit-{n}.png" for view in ("frontal", "lateral") for n in range(3)),
]


@pytest.mark.parametrize("name", ORIGINALS)
def test_originals(network: Network, shared: Path, name: str) -> None:
    """Radiographs at full size and depth, as the modality made them."""
    path = shared / "data/cxr/originals" / name
    if path.suffix == ".dcm":
        decoded = read_dicom(path.read_bytes(), 2**31)
        pixels = -decoded.pixels.astype(int) if decoded.inverted else decoded.pixels
    else:
        pixels = np.asarray(Image.open(path))
    difference, between = largest_difference(pixels, network)
    assert difference < TOLERANCE, between
