from __future__ import annotations

import random

import numpy as np
import pytest
from images import CODECS, NATIVE, dicom, jpeg, png, png_with_bytes_to_spare, radiograph
from PIL import Image
from pydicom import uid

from model_store.card import PreprocessSpec
from service.imaging import (
    CorruptImageError,
    EmptyImageError,
    ImageError,
    NoPixelDataError,
    UnrecognisedFormatError,
    image_to_tensor,
    read_radiograph,
)
from service.imaging.dicom import read_dicom

SPEC = PreprocessSpec(size=32)
PIXELS = radiograph(160, 144)
GREY8 = (PIXELS >> 4).astype(np.uint8)
EXPECTED = image_to_tensor(dicom(PIXELS), SPEC).astype(int)
SYNTAXES = [*NATIVE, uid.RLELossless, *CODECS]
WAVELETS = {
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
}
EXACT = {*NATIVE, uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless}


@pytest.mark.parametrize(
    ("same", "tolerance"),
    [
        pytest.param(dicom(4095 - PIXELS, PhotometricInterpretation="MONOCHROME1"), 1, id="mono1"),
        pytest.param(
            dicom(
                4095 - PIXELS,
                PhotometricInterpretation="MONOCHROME1",
                PresentationLUTShape="INVERSE",
            ),
            1,
            id="mono1-inverse",
        ),
        pytest.param(dicom(4095 - PIXELS, PresentationLUTShape="INVERSE"), 1, id="inverse"),
        pytest.param(dicom(PIXELS, RescaleSlope="2", RescaleIntercept="-1"), 0, id="rescale"),
        pytest.param(dicom(4095 - PIXELS, RescaleSlope="-1", RescaleIntercept="0"), 1, id="slope"),
        pytest.param(
            dicom(PIXELS, WindowCenter=["100", "900"], WindowWidth=["5", "-7"]), 0, id="windows"
        ),
        pytest.param(
            dicom(PIXELS, WindowCenter="7.125", WindowWidth="0").replace(b"7.125", b"NaN  "),
            0,
            id="window-nan",
        ),
        pytest.param(dicom(PIXELS << 4), 0, id="16-bit"),
        pytest.param(dicom(PIXELS.astype(np.int16) - 2000), 0, id="signed"),
        pytest.param(png(PIXELS * 16), 0, id="png16"),
        pytest.param(png(GREY8), 1, id="png8"),
        pytest.param(png(np.stack([GREY8] * 3, axis=2)), 1, id="png-rgb"),
        pytest.param(jpeg(GREY8), 4, id="jpeg"),
        pytest.param(dicom(np.stack([GREY8] * 3, axis=2)), 1, id="rgb"),
        *(
            pytest.param(
                dicom(GREY8 if syntax == uid.JPEGBaseline8Bit else PIXELS, syntax),
                0 if syntax in EXACT else 4,
                id=uid.UID(syntax).keyword,
            )
            for syntax in SYNTAXES
            if syntax not in WAVELETS
        ),
    ],
)
def test_one_radiograph_has_one_tensor(same, tolerance):
    """However the same picture is stored, the model sees the same input."""
    np.testing.assert_allclose(image_to_tensor(same, SPEC), EXPECTED, atol=tolerance)


@pytest.mark.parametrize("syntax", sorted(WAVELETS))
def test_a_reduced_wavelet_shifts_edges_only(syntax):
    """Decoded at half the size, it differs by less than a grey level on average."""
    difference = image_to_tensor(dicom(PIXELS, syntax), SPEC) - EXPECTED
    assert np.abs(difference).mean() < 1


def test_the_answer_keeps_what_the_file_said():
    """A DICOM file brings its header along; a PNG has none."""
    image = read_radiograph(dicom(PIXELS, ViewPosition="AP"), SPEC)
    assert image.format == "dicom"
    assert image.header is not None
    assert image.header.agrees("frontal") is True
    assert image.transfer_syntax == "Explicit VR Little Endian"
    picture = read_radiograph(png(GREY8), SPEC)
    assert (picture.format, picture.header, picture.sop_instance_uid) == ("png", None, None)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", EmptyImageError, "no bytes"),
        (b"a plain text", UnrecognisedFormatError, "neither DICOM"),
        (dicom(PIXELS)[136:], UnrecognisedFormatError, "neither DICOM"),
        (b"%PDF-1.7", UnrecognisedFormatError, "this is PDF"),
        (b"PK\x03\x04", UnrecognisedFormatError, "this is zip"),
        (b"II*\x00", CorruptImageError, "TIFF"),
        (b"MM\x00*", CorruptImageError, "TIFF"),
        (b"\xff\x4f\xff\x51", CorruptImageError, "cut off"),
        (b"\0\0\0\x0cjP  ", CorruptImageError, "no codestream"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", UnrecognisedFormatError, "this is WebP"),
        (b"\0\0\0\x18ftypheic", UnrecognisedFormatError, "this is HEIC"),
        (b"\0\0\0\x20ftypavif", UnrecognisedFormatError, "this is AVIF"),
        (b'[{"00080005": {"vr": "CS"}}]', UnrecognisedFormatError, "this is DICOM JSON"),
        (
            b'\xef\xbb\xbf {"00080005":{"Value":["x"],"vr":"CS"}}',
            UnrecognisedFormatError,
            "this is DICOM JSON",
        ),
        (b'{"a": 1}', UnrecognisedFormatError, "this is JSON"),
        (
            b'<?xml version="1.0"?>\n<NativeDicomModel>',
            UnrecognisedFormatError,
            "this is DICOM XML",
        ),
        (b"<?xml version='1.0'?><svg>", UnrecognisedFormatError, "this is SVG"),
        (b"\n<!DOCTYPE html>", UnrecognisedFormatError, "this is HTML"),
        (b"<?xml version='1.0'?><x>", UnrecognisedFormatError, "this is XML"),
        (b"\x1f\x8b\x08\x08\0\0\0\0\0\x03x.nii\0", UnrecognisedFormatError, "NIfTI"),
        (b"\x1f\x8b\x08\0", UnrecognisedFormatError, "this is gzip"),
        (b"\x5c\1\0\0".ljust(344, b"\0") + b"n+1\0", UnrecognisedFormatError, "this is NIfTI"),
        (b"NRRD0004\n", UnrecognisedFormatError, "this is NRRD"),
        (b"II+\0\x08\0\0\0", UnrecognisedFormatError, "this is BigTIFF"),
        (bytes(128) + b"DICM", NoPixelDataError, "no Pixel Data"),
    ],
)
def test_what_is_no_file_of_ours_is_named(data, error, says):
    """People learn what they sent, by its content."""
    with pytest.raises(error, match=says):
        read_radiograph(data, SPEC)


FILES = {
    "png": png(radiograph(40, 36)),
    "jpeg": jpeg(radiograph(40, 36, bits=8).astype(np.uint8)),
    **{
        uid.UID(syntax).keyword: dicom(
            radiograph(40, 36, bits=8 if syntax == uid.JPEGBaseline8Bit else 12).astype(
                np.uint8 if syntax == uid.JPEGBaseline8Bit else np.uint16
            ),
            syntax,
        )
        for syntax in SYNTAXES
    },
}


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_survived(name):
    """No damaged byte gets past `ImageError`: whatever happens, the service can say it."""
    rng = random.Random(name)
    for _ in range(40):
        damaged = bytearray(FILES[name])
        for _ in range(rng.choice([1, 2, 6])):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 255, rng.randrange(256)])
        try:
            tensor = image_to_tensor(bytes(damaged[: rng.choice([None, len(damaged) - 9])]), SPEC)
        except ImageError:
            continue
        assert tensor.shape == (1, 32, 32)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_from_any_buffer(name, kind):
    """The body of a request need not be copied into bytes first."""
    expected = image_to_tensor(FILES[name], SPEC)
    np.testing.assert_array_equal(image_to_tensor(kind(FILES[name]), SPEC), expected)


def test_a_file_at_an_odd_place_is_read():
    """Within a multipart body, words may begin at odd addresses."""
    data = dicom(PIXELS)
    body = memoryview(b"-" + data)[1:]
    np.testing.assert_array_equal(image_to_tensor(body, SPEC)[0], EXPECTED[0])


def test_the_answer_names_the_decoders_that_refused():
    """So that the service can count them."""
    assert read_radiograph(dicom(PIXELS), SPEC).fallbacks == ()
    data = png_with_bytes_to_spare(PIXELS.astype(np.uint8))
    assert read_radiograph(data, SPEC).fallbacks == ("imagecodecs-png",)


def originals(shared):
    folder = shared / "data/cxr/originals"
    return sorted([*folder.glob("*.dcm"), *folder.glob("*.png")])


def test_every_real_file_is_read(shared):
    """Radiographs as they were found give tensors that span the range."""
    files = originals(shared)
    assert files
    for path in files:
        tensor = image_to_tensor(path.read_bytes(), PreprocessSpec())
        assert (tensor.min(), tensor.max()) == (0, 255), path.name


@pytest.mark.parametrize("name", ["wg04-rg1-jpeg2000.dcm", "clinic-frontal-16bit-0.png"])
def test_a_real_radiograph_has_one_tensor(shared, name):
    """Stored anew in each transfer syntax, it differs by no more than 4 of 255, or on average by
    1.5 where JPEG 2000 was decoded at reduced resolution.
    """
    path = shared / "data/cxr/originals" / name
    if path.suffix == ".dcm":
        pixels = read_dicom(path.read_bytes(), 2**31).picture.pixels
    else:
        pixels = np.asarray(Image.open(path)).astype(np.uint16)
    pixels = pixels[:1024, :1024]
    expected = image_to_tensor(png(pixels), PreprocessSpec()).astype(int)
    lossy12 = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
    for syntax in SYNTAXES:
        if syntax in lossy12:
            continue  # fewer bits than this picture has
        tensor = image_to_tensor(dicom(pixels, syntax), PreprocessSpec())
        difference = np.abs(tensor - expected)
        assert (difference.mean() < 1.5) if syntax in WAVELETS else (difference.max() <= 4), syntax
