"""One radiograph has one PFI, however it is stored and decoded: the network's view of codecs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from images import CODECS, NATIVE, dicom, jpeg, png
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from model_store import AnsweredView, PreprocessSpec, Store
from service.imaging import Tensor, image_to_tensor
from service.imaging.dicom import read_dicom
from service.imaging.preprocess import prepare
from service.imaging.raster import read_raster
from service.inference import Network, open_network

BETWEEN_FILES = 0.01  # of PFI, between one picture's files, lossy ones and 8 bits included
OF_DECODING = 0.005  # of PFI, between a file decoded as small as may be and at full size
FULL_SIZE = 2**31

Files = Callable[[], dict[str, bytes]]


# The smallest of those with version 1 of the preprocessing, and all with version 2
MODELS = ["swift/1.0.0", *(each for each in Store().list() if not each.endswith("/1.0.0"))]


@pytest.fixture(scope="module", params=MODELS)
def network(request: pytest.FixtureRequest) -> Network:
    """Each of these published models in turn."""
    return open_network(Store().load(request.param))


def stored(pixels: np.ndarray) -> dict[str, bytes]:
    """The picture in every transfer syntax and format."""
    deep = pixels.astype(np.float64) - pixels.min()
    twelve = np.rint(deep * (4095 / deep.max())).astype(np.uint16)
    eight = (twelve >> 4).astype(np.uint8)
    files = {"PNG16": png(twelve << 4), "PNG8": png(eight), "JPEG": jpeg(eight)}
    for syntax in (*NATIVE, uid.RLELossless, *CODECS):
        values = eight if syntax == uid.JPEGBaseline8Bit else twelve
        files[uid.UID(syntax).keyword] = dicom(values, syntax)
    return files


def fully_decoded(data: bytes, spec: PreprocessSpec) -> Tensor:
    """The tensor without anything left out while decoding."""
    if data[128:132] == b"DICM":
        return prepare(read_dicom(data, FULL_SIZE).picture, spec).tensor
    raster = read_raster(data, "png" if data.startswith(b"\x89PNG") else "jpeg", FULL_SIZE)
    return prepare(raster.picture, spec).tensor


@cache  # by what several models share
def tensors(source: Files, spec: PreprocessSpec) -> dict[str, tuple[bytes, bytes]]:
    """Of each file, as it is decoded and as it would be at full size."""
    return {
        name: (image_to_tensor(data, spec).tobytes(), fully_decoded(data, spec).tobytes())
        for name, data in source().items()
    }


def check(source: Files, network: Network) -> None:
    """Compare each file's two ways of decoding, and all files with each other.

    What is compared is the PFI; of an image that is not_chest, of which the PFI says nothing, it is
    the probability of a chest radiograph.
    """
    card = network.version.card
    spec = card.preprocess
    views = set[AnsweredView]()

    @cache
    def told(tensor: bytes) -> float:  # most are equal, and the network takes longest
        pixels = np.frombuffer(tensor, np.uint8).reshape(1, 1, spec.size, spec.size)
        (prediction,) = network.run(pixels)
        decision = card.decide(prediction, doubtful=False)
        views.add(decision.view)
        if decision.view != "not_chest":
            return prediction.pfi
        assert prediction.chest is not None
        return prediction.chest

    found = {name: (told(fast), told(full)) for name, (fast, full) in tensors(source, spec).items()}
    assert len(views) == 1
    apart = {name: abs(fast - full) for name, (fast, full) in found.items()}
    assert max(apart.values()) <= OF_DECODING, apart
    fast = {name: fast for name, (fast, _) in found.items()}
    assert max(fast.values()) - min(fast.values()) <= BETWEEN_FILES, fast


@cache
def enlarged(path: Path, size: int) -> Files:
    """So that JPEG 2000 is decoded at the very size of the tensor: the hardest case."""
    side = size * 2 ** math.ceil(math.log2(400 / size))
    pixels = Image.open(path).convert("L").resize((side, side), Image.Resampling.BICUBIC)
    return cache(lambda: stored(np.asarray(pixels)))


@cache
def computed(name: str) -> Files:
    """As found in four files, and stored anew."""
    kinds = ("UNCR", "UNCI", "J2KR", "J2KI")
    paths = [Path(get_testdata_file(f"{name}_{kind}.dcm", download=False)) for kind in kinds]
    files = {path.name: path.read_bytes() for path in paths}
    decoded = read_dicom(files[f"{name}_UNCR.dcm"], FULL_SIZE)
    return cache(lambda: files | stored(-decoded.picture.pixels.astype(int)))


@cache
def original(path: Path) -> Files:
    """As found, and stored anew."""
    data = path.read_bytes()
    if path.suffix == ".dcm":
        decoded = read_dicom(data, FULL_SIZE).picture
        pixels = -decoded.pixels.astype(int) if decoded.inverted else decoded.pixels
    else:
        pixels = np.asarray(Image.open(path))
    return cache(lambda: {path.name: data} | stored(pixels))


@pytest.mark.parametrize("path", sorted(DATA.glob("*.jpg")), ids=lambda path: path.stem)
def test_bundled_radiographs(network: Network, path: Path) -> None:
    """Frontals and laterals that the networks find easy and hard."""
    check(enlarged(path, network.version.card.preprocess.size), network)


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_computed_radiographs(network: Network, name: str) -> None:
    """Two CR of the NEMA compression samples."""
    check(computed(name), network)


ORIGINALS = [
    "wg04-rg1-jpeg2000.dcm",
    "orthanc-monochrome1-jpeg.dcm",
    "rsna-cr-jpeg.dcm",
    "rsna-cr-jpeg-2.dcm",
    *(f"clinic-{view}-16bit-{n}.png" for view in ("frontal", "lateral") for n in range(3)),
]


@pytest.mark.parametrize("name", ORIGINALS)
def test_originals(network: Network, shared: Path, name: str) -> None:
    """Radiographs at full size and depth, as the modality made them."""
    check(original(shared / "data/cxr/originals" / name), network)
