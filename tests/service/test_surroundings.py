"""However an archive surrounds, covers or stores a radiograph, the network's answer is the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from conftest import DATA
from images import dicom, png
from PIL import Image
from pydicom import uid
from surroundings import Odd, burned_in, declared, small_fields

from model_store import Store
from service.imaging import image_to_tensor
from service.inference import Network, open_network

MODEL = "swift/1.1.0"  # the smaller network: its answers move more
APART = 0.01  # of PFI, from the plain picture
# Where an edge over ten times the radiograph's range is smeared by JPEG 2000, decoded at a reduced
# size: lossless, and not
SMEARED_APART = {uid.JPEG2000Lossless: 0.01, uid.JPEG2000: 0.2}
EXACT = (uid.ExplicitVRLittleEndian, uid.RLELossless)
FILES = sorted(path.name for path in DATA.glob("*.jpg"))


@pytest.fixture(scope="module")
def pfi() -> Callable[[bytes], float]:
    """Of a file, by the published network and its preprocessing."""
    network: Network = open_network(Store().load(MODEL))
    spec = network.version.card.preprocess
    return lambda data: float(network.pfi(image_to_tensor(data, spec)[np.newaxis])[0])


@cache
def odd_pictures(name: str) -> dict[str, Odd]:
    """All that may befall one radiograph of 12 bits, with some noise as a detector's."""
    with Image.open(DATA / name) as opened:
        grey = np.asarray(opened.convert("L"), np.float64) * 16
    noise = np.random.default_rng(0).normal(0, 4, grey.shape)
    pixels = (grey + noise).clip(1, 4094).astype(np.uint16)
    kinds = (burned_in, small_fields, declared)
    return {case: odd for kind in kinds for case, odd in kind(pixels)}


def inverted(odd: Odd) -> Odd:
    """The same in MONOCHROME1."""
    signed = odd.pixels.dtype.kind == "i"
    highest = -1 if signed else 65535
    attributes = dict(odd.attributes) | {"PhotometricInterpretation": "MONOCHROME1"}
    if "PixelPaddingValue" in attributes:
        attributes["PixelPaddingValue"] = highest - attributes["PixelPaddingValue"]
    pixels = (highest - odd.pixels.astype(np.int32)).astype(odd.pixels.dtype)
    return Odd(pixels, odd.plain, attributes)


@pytest.mark.parametrize("name", FILES)
def test_the_answer_is_that_of_the_plain_picture(name, pfi):
    """43 pictures in both polarities: frames, boxes and markers far off, small fields on plates of
    every grey, padding, and shutters of each shape.
    """
    apart = {}
    for case, odd in odd_pictures(name).items():
        expected = pfi(png(odd.plain << 4))
        for number, each in enumerate((odd, inverted(odd))):
            syntax = EXACT[(len(apart) // 2) % 2]  # in turn, as both give the same values
            found = pfi(dicom(each.pixels, syntax, BitsStored=16, **each.attributes))
            apart[case, number] = abs(found - expected)
    assert len(apart) == 86
    assert max(apart.values()) <= APART, {case: by for case, by in apart.items() if by > APART}


@pytest.mark.parametrize("name", FILES[::3])
@pytest.mark.parametrize("syntax", SMEARED_APART)
def test_compression_and_reduction_smear_no_answer(name, syntax, pfi):
    """JPEG 2000, lossless and not, decoded no larger than needed."""
    apart = {}
    for case, odd in odd_pictures(name).items():
        if odd.pixels.dtype.kind == "i":
            continue  # the encoder here has no signed samples
        data = dicom(odd.pixels, syntax, BitsStored=16, **odd.attributes)
        apart[case] = abs(pfi(data) - pfi(png(odd.plain << 4)))
    bound = SMEARED_APART[syntax]
    assert max(apart.values()) <= bound, {case: by for case, by in apart.items() if by > bound}
