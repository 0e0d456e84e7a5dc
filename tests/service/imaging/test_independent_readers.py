"""The stored values of generated objects, as pydicom and DCMTK read them, and as this package does.

Each difference has a rule, which says what the other reader does, and why this package does not.
"""

from __future__ import annotations

import io
import random
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from images import CODECS, NATIVE, dicom, radiograph
from pydicom import uid
from pydicom.encaps import encapsulate
from tools import tool

from service.imaging.dicom import read_dicom

FULL_SIZE = 2**31
OBJECTS = 500
SYNTAXES = [*NATIVE, uid.RLELossless, *CODECS]
JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
WAVELETS = {uid.JPEG2000Lossless, uid.JPEG2000}
HIGH_THROUGHPUT = {uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}
LOSSLESS_JPEG = {uid.JPEGLossless, uid.JPEGLosslessSV1}
DCT = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
UNSIGNED = DCT | {uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}  # lossy: a sign bit would wrap
LOSSY = DCT | {uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}
LOSS = 1 / 8  # of the range, at the most; whether a lossy frame is read right, the others say
OVERSHOOTING = LOSSY - DCT  # frames here declare more bits than Bits Stored, or reach its end

# Plugins for the others are under the GPL, or have 8 bits only; DCMTK reads these, and no wavelets
BY_PYDICOM = [each for each in SYNTAXES if each not in {*LOSSLESS_JPEG, uid.JPEGExtended12Bit}]
BY_DCMTK = [each for each in SYNTAXES if each not in WAVELETS | HIGH_THROUGHPUT]

Values = npt.NDArray[np.int64]


class Generated(NamedTuple):
    """An object, and what it was made of."""

    data: bytes
    stored: Values  # (rows, columns)
    syntax: str
    bits: int
    signed: bool
    photometric: str
    high_bit: int

    @property
    def colour(self) -> bool:
        """Whether it has three samples."""
        return "MONOCHROME" not in self.photometric


def generated(number: int) -> Generated:
    """The object of this number: any syntax that allows its bits, sign, samples and photometric."""
    rng = random.Random(f"independent {number}")
    syntax = SYNTAXES[number % len(SYNTAXES)]
    rows, columns = rng.randrange(33, 80), rng.randrange(33, 80)
    if rng.random() < 0.2 and syntax not in DCT | JPEG_LS | HIGH_THROUGHPUT | LOSSLESS_JPEG:
        return colour(rng, syntax, rows, columns & ~1, number)
    bits = rng.choice([8, 9, 10, 12, 14, 15, 16])
    bits = {uid.JPEGBaseline8Bit: 8, uid.JPEGExtended12Bit: 12}.get(uid.UID(syntax), bits)
    signed = rng.random() < 0.4 and syntax not in UNSIGNED
    values = radiograph(rows, columns, bits, seed=number)
    allocated = 8 if bits == 8 and (syntax in DCT | LOSSLESS_JPEG or rng.random() < 0.7) else 16
    samples = values.astype(f"u{allocated // 8}")
    stored = values.astype(np.int64)
    if signed:
        stored -= 1 << (bits - 1)
        samples = stored.astype(f"i{allocated // 8}")
    high = bits - 1
    if syntax in NATIVE and rng.random() < 0.2:  # left-aligned, or in between
        high = rng.randrange(bits - 1, allocated)
        samples = (samples << (high - bits + 1)).astype(samples.dtype)
    photometric = rng.choice(["MONOCHROME1", "MONOCHROME2"])
    attributes: dict[str, Any] = {"PhotometricInterpretation": photometric, "HighBit": high}
    if signed and syntax in WAVELETS | HIGH_THROUGHPUT:  # whose frames say so themselves
        attributes["PixelData"] = encapsulate([bytes(CODECS[syntax](samples, bits))])
    data = dicom(samples, syntax, BitsStored=bits, **attributes)
    return Generated(data, stored, syntax, bits, signed, photometric, high)


def objects(syntax: str) -> list[Generated]:
    """Those of a syntax."""
    return list(map(generated, range(SYNTAXES.index(syntax), OBJECTS, len(SYNTAXES))))


def colour(rng: random.Random, syntax: str, rows: int, columns: int, number: int) -> Generated:
    """Three samples that agree, interleaved or in planes."""
    grey = radiograph(rows, columns, 8, seed=number).astype(np.uint8)
    photometric = rng.choice(["RGB", "YBR_FULL"]) if syntax in NATIVE else "RGB"
    neutral = [np.full_like(grey, 128)] * 2 if photometric == "YBR_FULL" else [grey] * 2
    samples = np.stack([grey, *neutral], axis=2)
    planar = rng.randrange(2) if syntax in NATIVE else 0
    data = dicom(samples, syntax, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
    return Generated(data, grey.astype(np.int64), syntax, 8, False, photometric, 7)


def by_pydicom(case: Generated) -> Values:
    """What pydicom's first plugin for the syntax says."""
    found = pydicom.dcmread(io.BytesIO(case.data)).pixel_array.astype(np.int64)
    return found[..., 1] if case.colour else found


def by_dcmtk(case: Generated, program: Path, folder: Path) -> Values:
    """What DCMTK shows of it, without Modality LUT and window: 0 for the least of Bits Stored."""
    file = folder / "object.dcm"
    file.write_bytes(case.data)
    arguments = ["--no-modality", "--no-windowing", "--write-n-bit-pnm", str(case.bits)]
    shown = subprocess.run(
        [program, *arguments, file], capture_output=True, check=True, timeout=60
    ).stdout.split()
    width, height = int(shown[1]), int(shown[2])
    found = np.array(shown[4:], np.int64)
    if case.colour:
        return found.reshape(height, width, 3)[..., 1]
    found = found.reshape(height, width)
    if case.photometric == "MONOCHROME1":  # black is white
        found = (1 << case.bits) - 1 - found
    return found - ((1 << (case.bits - 1)) if case.signed else 0)


def found(case: Generated) -> Values:
    """What this package says; no object contradicts itself."""
    image = read_dicom(case.data, FULL_SIZE)
    assert image.warnings == ()
    assert image.picture.inverted == (case.photometric == "MONOCHROME1")
    return image.picture.pixels.astype(np.int64)


def agrees_with_pydicom(case: Generated, ours: Values) -> None:
    """The same values, but for the named rules."""
    theirs, mask = by_pydicom(case), (1 << case.bits) - 1
    if case.high_bit != case.bits - 1:
        # Rule "High Bit": pydicom takes the lowest bits, wherever High Bit is (PS3.5 8.1.1)
        ours, theirs = (ours << (case.high_bit - case.bits + 1)) & mask, theirs & mask
    elif case.signed and case.syntax in JPEG_LS:
        # Rule "sign": JPEG-LS has none; pydicom takes the highest bit of the frame, which may be
        # above Bits Stored
        ours, theirs = ours & mask, theirs & mask
    elif case.syntax in OVERSHOOTING:
        # Rule "overshoot": pydicom hands out what a lossy frame has above Bits Stored
        theirs = theirs.clip(0, mask)
    np.testing.assert_array_equal(ours, theirs)


def agrees_with_dcmtk(case: Generated, ours: Values, theirs: Values) -> None:
    """The same values, but for the named rules."""
    if case.syntax in OVERSHOOTING:
        # Rule "overshoot": DCMTK masks it, so that the brightest pixels become black
        theirs = np.where(ours == (1 << case.bits) - 1, ours, theirs)
    # Rule "rounding": DCMTK turns MONOCHROME1 round in floating point, and YCbCr to RGB by integers
    rounded = case.photometric in {"MONOCHROME1", "YBR_FULL"}
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1 if rounded else 0)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: uid.UID(syntax).keyword)
def test_what_was_stored_is_read(syntax):
    """Lossless exactly, whatever the bits, their place, the sign, the samples and the polarity."""
    for case in objects(syntax):
        loss = LOSS * 2**case.bits if case.syntax in LOSSY else 0
        np.testing.assert_allclose(found(case), case.stored, rtol=0, atol=loss)


@pytest.mark.parametrize("syntax", BY_PYDICOM, ids=lambda syntax: uid.UID(syntax).keyword)
def test_pydicom_reads_the_same(syntax):
    """By its own code, and Pillow's, CharLS's and OpenJPEG's as it calls them."""
    for case in objects(syntax):
        agrees_with_pydicom(case, found(case))


@pytest.mark.parametrize("syntax", BY_DCMTK, ids=lambda syntax: uid.UID(syntax).keyword)
def test_dcmtk_reads_the_same(syntax, tmp_path):
    """A reader of another family, with decoders of its own."""
    program = tool("dcmtk/dcml2pnm" if syntax in JPEG_LS else "dcmtk/dcmj2pnm")
    for case in objects(syntax):
        agrees_with_dcmtk(case, found(case), by_dcmtk(case, program, tmp_path))


def test_every_rule_is_needed():
    """The objects are of every kind for which there is one."""
    cases = list(map(generated, range(OBJECTS)))
    assert any(case.high_bit != case.bits - 1 for case in cases)
    assert any(case.signed and case.syntax in JPEG_LS for case in cases)
    assert {case.photometric for case in cases} == {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL"}
