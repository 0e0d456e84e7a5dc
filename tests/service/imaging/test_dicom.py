from __future__ import annotations

import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from images import CODECS, NATIVE, dicom, radiograph
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from model_store.card import PreprocessSpec
from service.imaging import image_to_tensor
from service.imaging.dicom import read_dicom
from service.imaging.errors import (
    ColourImageError,
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    MultiFrameError,
    NoPixelDataError,
    UnsupportedPixelFormatError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)

FULL_SIZE = 2**31
PIXELS = radiograph(72, 64)
GREY8 = (PIXELS >> 4).astype(np.uint8)
RGB = np.stack([GREY8] * 3, axis=2)
PHOTO = np.random.default_rng(0).integers(0, 256, (72, 64, 3)).astype(np.uint8)
SYNTAXES = [*NATIVE, uid.RLELossless, *CODECS]
# Grey levels of 4095 by which a lossy codec may differ
OVERSHOOT = bytes(CODECS[uid.HTJ2K](np.minimum(PIXELS, 4000) + np.uint16(200), 16))
LOSSY = {
    uid.JPEGExtended12Bit: 8,
    uid.JPEGLSNearLossless: 2,
    uid.JPEG2000: 8,
    uid.HTJ2K: 40,
}


def lut(descriptor: list[int], values: list[int]) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "US", values)
    return Sequence([item])


def palette(**attributes) -> bytes:
    """A PALETTE COLOR image with a grey palette."""
    ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
    for colour in ("Red", "Green", "Blue"):
        key = f"{colour}PaletteColorLookupTable"
        attributes[f"{key}Descriptor"] = DataElement(f"{key}Descriptor", "US", [256, 0, 16])
        attributes[f"{key}Data"] = DataElement(f"{key}Data", "OW", ramp)
    return dicom(GREY8, PhotometricInterpretation="PALETTE COLOR", **attributes)


def swapped() -> bytes:
    """Eight bits in big-endian words, as OW."""
    words = GREY8.tobytes()
    pairs = np.frombuffer(words, ">u2").astype("<u2").tobytes()
    return dicom(GREY8, uid.ExplicitVRBigEndian, PixelData=DataElement("PixelData", "OW", pairs))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_gives_the_stored_values(syntax):
    """Lossless ones exactly, lossy ones within a few grey levels of 4095."""
    stored = GREY8 if syntax == uid.JPEGBaseline8Bit else PIXELS
    image = read_dicom(dicom(stored, syntax), FULL_SIZE)
    tolerance = 8 if syntax == uid.JPEGBaseline8Bit else LOSSY.get(syntax, 0)
    np.testing.assert_allclose(image.picture.pixels.astype(int), stored, atol=tolerance)
    assert image.transfer_syntax == uid.UID(syntax).name
    assert not image.picture.inverted
    assert image.warnings == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (dicom(PIXELS, BitsStored=16), PIXELS),
        (dicom(PIXELS.astype(np.uint32)), PIXELS),
        (dicom(PIXELS | 0xF000, BitsStored=12), PIXELS),
        (dicom(PIXELS << 4, BitsStored=12, HighBit=15), PIXELS),
        (dicom((PIXELS << 2) | 0xC003, BitsStored=12, HighBit=13), PIXELS),
        (dicom(PIXELS, HighBit=99), PIXELS),
        (dicom(PIXELS.astype(np.int16) - 2048), PIXELS.astype(int) - 2048),
        (
            dicom(((PIXELS.astype(np.int16) - 2048) & 0xFFF).astype(np.int16), BitsStored=12),
            PIXELS.astype(int) - 2048,
        ),
        (
            dicom(PIXELS.astype(np.int16) - 2048, uid.JPEGLosslessSV1, BitsStored=16),
            PIXELS.astype(int) - 2048,
        ),
        (
            dicom(
                PIXELS,
                uid.JPEG2000Lossless,
                PixelRepresentation=1,
                PixelData=encapsulate(
                    [bytes(CODECS[uid.JPEG2000Lossless](PIXELS.astype(np.int16) - 2048, 12))]
                ),
            ),
            PIXELS.astype(int) - 2048,
        ),
        (dicom(PIXELS, uid.HTJ2K, PixelData=encapsulate([OVERSHOOT])), None),
        (swapped(), GREY8),
        (dicom(RGB), GREY8),
        (dicom(RGB, PlanarConfiguration=1), GREY8),
        (dicom(RGB, uid.RLELossless), GREY8),
        (dicom(RGB, uid.JPEG2000Lossless), GREY8),
        (palette(), GREY8.astype(np.uint16) * 257),
    ],
    ids=[
        "16-in-16",
        "12-in-32",
        "overlays",
        "left-aligned",
        "between",
        "high-bit-lies",
        "signed",
        "signed-12",
        "signed-jpeg",
        "signed-jpeg2000",
        "overshoot",
        "ow-bytes",
        "rgb",
        "planar",
        "rgb-rle",
        "rgb-jpeg2000",
        "palette",
    ],
)
def test_the_stored_values_come_out_of_any_packing(data, expected):
    """Bits Stored, High Bit, sign and channels are undone."""
    pixels = read_dicom(data, FULL_SIZE).picture.pixels
    if expected is None:
        expected = np.minimum(np.minimum(PIXELS, 4000) + 200, 4095)
        np.testing.assert_allclose(pixels.astype(int), expected, atol=40)
    else:
        np.testing.assert_array_equal(pixels.astype(int), expected)


def test_full_range_ybr_is_grey():
    """A YBR_FULL image with neutral chroma is its luminance."""
    ybr = np.stack([GREY8, np.full_like(GREY8, 128), np.full_like(GREY8, 128)], axis=2)
    pixels = read_dicom(dicom(ybr, PhotometricInterpretation="YBR_FULL"), FULL_SIZE).picture.pixels
    np.testing.assert_array_equal(pixels, GREY8)


@pytest.mark.parametrize(
    ("attributes", "inverted", "warnings"),
    [
        ({}, False, ()),
        ({"PhotometricInterpretation": "MONOCHROME1"}, True, ()),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
            True,
            (),
        ),
        ({"PresentationLUTShape": "INVERSE"}, True, ()),
        ({"PresentationLUTShape": "IDENTITY"}, False, ()),
        ({"RescaleSlope": "2", "RescaleIntercept": "-1024"}, False, ()),
        ({"RescaleSlope": "-1", "RescaleIntercept": "4095"}, True, ()),
        (
            {"RescaleSlope": "-1", "PhotometricInterpretation": "MONOCHROME1"},
            False,
            (),
        ),
        ({"RescaleIntercept": "5"}, False, ("rescale_ignored",)),
        ({"RescaleSlope": "0", "RescaleIntercept": "5"}, False, ("rescale_ignored",)),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, False, ()),
        ({"SOPClassUID": None, "MediaStorageSOPClassUID": None}, False, ("sop_class_missing",)),
    ],
)
def test_polarity_is_decided_once(attributes, inverted, warnings):
    """MONOCHROME1 and INVERSE say the same; a negative slope turns it once more."""
    image = read_dicom(dicom(PIXELS, **attributes), FULL_SIZE)
    assert (image.picture.inverted, image.warnings) == (inverted, warnings)


@pytest.mark.parametrize("value", [b"NaN  ", b"inf  ", b"steep"])
def test_a_slope_that_is_no_number_is_ignored(value):
    """Whether Python reads it or not, the image is answered, with a warning."""
    data = dicom(PIXELS, RescaleSlope="7.125", RescaleIntercept="0").replace(b"7.125", value)
    assert read_dicom(data, FULL_SIZE).warnings == ("rescale_ignored",)


def test_a_modality_lut_is_applied():
    """The table may turn the picture round, or bend it."""
    table = list(range(4095, -1, -1))
    data = dicom(PIXELS, ModalityLUTSequence=lut([4096, 0, 16], table))
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, 4095 - PIXELS)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 65000])
def test_padding_is_told_apart(photometric, limit):
    """A value, or all from it to a limit; the pixels stay as they are stored."""
    padded = PIXELS + np.uint16(100)
    padded[:20] = 65535
    padded[20:30] = 65535 if limit is None else 65100
    attributes = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    image = read_dicom(
        dicom(padded, PixelPaddingValue=65535, PhotometricInterpretation=photometric, **attributes),
        FULL_SIZE,
    )
    np.testing.assert_array_equal(image.picture.padding, padded > 5000)
    np.testing.assert_array_equal(image.picture.pixels, padded)


@pytest.mark.parametrize("value", [5, 65535])
def test_padding_of_nothing_or_everything_is_no_padding(value):
    """A value that no pixel has, or that all have, masks nothing."""
    flat = np.full((64, 64), 5, np.uint16)
    image = read_dicom(dicom(flat, PixelPaddingValue=value), FULL_SIZE)
    assert image.picture.padding is None


def test_padding_is_found_in_jpeg_2000_too():
    """Padding needs exact values, so the frame is decoded at full size."""
    padded = radiograph(128, 128)
    padded[:40] = 0
    image = read_dicom(dicom(padded, uid.JPEG2000Lossless, PixelPaddingValue=0), 32)
    assert image.picture.pixels.shape == padded.shape


def test_what_the_header_says_is_kept():
    """View Position and SOP Instance UID pass through; empty ones are None."""
    image = read_dicom(dicom(PIXELS, ViewPosition="ll "), FULL_SIZE)
    assert image.header.view == "lateral"
    assert image.sop_instance_uid == "1.2.826.0.1.3680043.8.498.1"
    assert read_dicom(dicom(PIXELS, ViewPosition=""), FULL_SIZE).header.view_position is None


OTHER_CLASSES = [
    uid.CTImageStorage,
    uid.MRImageStorage,
    uid.UltrasoundImageStorage,
    uid.EncapsulatedPDFStorage,
    uid.VideoEndoscopicImageStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.BasicTextSRStorage,
    uid.UID("1.2.3.4.5"),
]


@pytest.mark.parametrize("sop_class", OTHER_CLASSES)
def test_other_objects_are_refused_by_name(sop_class):
    """CT, MR, documents and states are no radiographs; the message names what came."""
    with pytest.raises(UnsupportedSopClassError, match=sop_class.name):
        read_dicom(dicom(PIXELS, SOPClassUID=sop_class), FULL_SIZE)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (dicom(PIXELS, PixelData=None), NoPixelDataError, "no Pixel Data"),
        (dicom(PIXELS, PixelData=b""), NoPixelDataError, "no Pixel Data"),
        (
            dicom(PIXELS, PixelData=None, FloatPixelData=bytes(4 * PIXELS.size)),
            UnsupportedPixelFormatError,
            "floating-point",
        ),
        (
            dicom(PIXELS, uid.RLELossless, TransferSyntaxUID="1.2.840.10008.1.2.4.100"),
            UnsupportedTransferSyntaxError,
            "no decoder for MPEG2",
        ),
        (
            dicom(PIXELS, TransferSyntaxUID="1.2.3.4"),
            UnsupportedTransferSyntaxError,
            r"no decoder for 1\.2\.3\.4",
        ),
        (dicom(PIXELS, NumberOfFrames=2), MultiFrameError, "more than one frame"),
        (dicom(PHOTO), ColourImageError, "colour"),
        (dicom(PHOTO, uid.JPEG2000Lossless, SamplesPerPixel=1), ColourImageError, "colour"),
        (dicom(PIXELS, uid.JPEG2000Lossless, SamplesPerPixel=3), CorruptImageError, "frame has 1"),
        (dicom(PIXELS, SamplesPerPixel=2), UnsupportedPixelFormatError, "2 samples"),
        (dicom(PIXELS, SamplesPerPixel=3), CorruptImageError, "holds 9216 of 27648"),
        (dicom(PIXELS, BitsAllocated=1, BitsStored=1), UnsupportedPixelFormatError, "1 bits"),
        (dicom(PIXELS, BitsStored=12, BitsAllocated=8), UnsupportedPixelFormatError, "12 bits"),
        (dicom(PIXELS, Rows=100), CorruptImageError, "9216 of 12800 bytes"),
        (dicom(PIXELS, uid.JPEGLSLossless, Rows=100), CorruptImageError, "holds 72 x 64"),
        (dicom(PIXELS, uid.RLELossless, Rows=100), CorruptImageError, "RLE"),
        (dicom(PIXELS, Rows=None), CorruptImageError, "has no Rows"),
        (dicom(PIXELS, Rows=1, Columns=1), ImageTooSmallError, "1 x 1"),
        *(
            (dicom(PIXELS, syntax, Rows=65535, Columns=65535), ImageTooLargeError, "65535 x 65535")
            for syntax in (uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless)
        ),
        (
            dicom(PIXELS, NumberOfFrames="7125").replace(b"7125", b"many"),
            CorruptImageError,
            "NumberOfFrames is no whole number",
        ),
        (
            dicom(PIXELS, uid.JPEGLossless, PixelData=encapsulate([b"no frame"])),
            UnsupportedTransferSyntaxError,
            "neither JPEG",
        ),
        (
            dicom(PIXELS, uid.DeflatedExplicitVRLittleEndian)[:-2000],
            CorruptImageError,
            "cut off",
        ),
    ],
)
def test_each_refusal_says_why(data, error, says):
    """Objects that contradict themselves, and objects of another kind, are told apart."""
    with pytest.raises(error, match=says):
        read_dicom(data, FULL_SIZE)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_an_object_is_no_image(syntax, share):
    """An object that is cut off is refused, never answered with what there is."""
    data = dicom(GREY8 if syntax == uid.JPEGBaseline8Bit else PIXELS, syntax)
    with pytest.raises(ImageError):
        read_dicom(data[: int(share * len(data))], FULL_SIZE)


def bomb() -> bytes:
    """320 MiB of zeros, deflated behind a valid header."""
    head = dicom(PIXELS, uid.DeflatedExplicitVRLittleEndian)
    syntax = uid.DeflatedExplicitVRLittleEndian.encode()  # the last value of the file meta
    start = head.index(syntax) + len(syntax)
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    zeros = bytes(2**24)
    body = b"".join(deflate.compress(zeros) for _ in range(20)) + deflate.flush()
    return head[:start] + body


def test_a_deflate_bomb_is_refused():
    """Inflating stops at a bound, far below what a few kilobytes can become."""
    with pytest.raises(ImageTooLargeError, match="deflated"):
        read_dicom(bomb(), FULL_SIZE)


SILENT = """
import sys
from service.imaging import ImageError, read_radiograph
from model_store.card import PreprocessSpec
try:
    read_radiograph(sys.stdin.buffer.read(), PreprocessSpec(size=32))
except ImageError as error:
    print(error)
"""


def test_a_damaged_header_never_speaks():
    """No warning, log line or message repeats what a header says of the patient."""
    data = dicom(
        PIXELS, PatientAge="042Y", NumberOfFrames="7125", SpecificCharacterSet="ISO_IR 100"
    )
    damaged = (
        data.replace(b"19640229", b"Jane Doe")
        .replace(b"042Y", b"Jane")
        .replace(b"7125", b"Jane")
        .replace(b"ISO_IR 100", b"Jane Doe  ")
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", SILENT],
        input=damaged,
        capture_output=True,
        check=True,
    )
    assert b"NumberOfFrames is no whole number" in done.stdout
    assert b"Jan" not in done.stdout
    assert done.stderr == b""


@pytest.mark.parametrize("rows", [32, 40, 320])
@pytest.mark.parametrize("colour", [False, True])
def test_a_frame_of_another_size_than_the_header_is_corrupt(rows, colour):
    """Grey or colour, smaller, larger or half: the size in the header is the size of the frame."""
    grey = (radiograph(160, 144) >> 4).astype(np.uint8)
    frame = imagecodecs.jpeg_encode(np.stack([grey] * 3, axis=2) if colour else grey, 95)
    attributes = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}
    data = dicom(
        grey,
        uid.JPEGBaseline8Bit,
        Rows=rows,
        PixelData=encapsulate([frame]),
        **(attributes if colour else {}),
    )
    with pytest.raises(CorruptImageError, match="the header says"):
        image_to_tensor(data, PreprocessSpec(size=32))
