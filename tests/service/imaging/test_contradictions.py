"""Objects whose header says something else than their pixels."""

from __future__ import annotations

import io
import struct
from itertools import pairwise

import imagecodecs
import numpy as np
import pydicom
import pytest
from images import CODECS, dicom, radiograph
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from model_store import PreprocessSpec
from service.imaging import read_radiograph
from service.imaging.dicom import DicomImage, read_dicom
from service.imaging.errors import (
    BlankImageError,
    ColourImageError,
    CorruptImageError,
    UnsupportedPixelFormatError,
    UnsupportedTransferSyntaxError,
)

FULL_SIZE = 2**31
PIXELS = radiograph(160, 144)
GREY8 = (PIXELS >> 4).astype(np.uint8)
RGB = np.stack([GREY8] * 3, axis=2)
YBR = np.stack([GREY8, *[np.full_like(GREY8, 128)] * 2], axis=2)
PHOTO = np.random.default_rng(0).integers(0, 256, (160, 144, 3)).astype(np.uint8)
WAVELETS = [uid.JPEG2000Lossless, uid.HTJ2KLossless]
BITS, SIGN = "bits_stored_contradicted", "pixel_representation_contradicted"
COLOUR = "photometric_interpretation_contradicted"


def read(data: bytes) -> DicomImage:
    return read_dicom(data, FULL_SIZE)


def encapsulated(frame: bytes, syntax: str = uid.JPEG2000Lossless, **attributes) -> bytes:
    """A frame under the header of a grey image of 12 bits, with other attributes."""
    return dicom(
        PIXELS,
        uid.JPEGLSLossless,
        TransferSyntaxUID=syntax,
        PixelData=encapsulate([bytes(frame)]),
        **attributes,
    )


def j2k(values: np.ndarray, bits: int, **options) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            values, 0, codecformat="j2k", reversible=True, bitspersample=bits, **options
        )
    )


# Pixel Data that are longer than the header says


@pytest.mark.parametrize(
    "attributes",
    [
        {"Columns": 72},
        {"Columns": 142},
        {"Rows": 159},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    ],
    ids=["half of the columns", "two columns", "one row", "8 bits allocated"],
)
def test_a_row_more_than_the_header_says_is_corrupt(attributes):
    """PS3.5 8.1.1: such a header is of another image; the message has both numbers."""
    with pytest.raises(CorruptImageError, match=r"holds 46080 bytes, but the header describes \d+"):
        read(dicom(PIXELS, **attributes))


def test_three_samples_that_the_header_calls_one_are_corrupt():
    """It would show the upper third of the image, three times as wide."""
    data = dicom(RGB, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    with pytest.raises(
        CorruptImageError, match="holds 69120 bytes, but the header describes 23040"
    ):
        read(data)


@pytest.mark.parametrize(("surplus", "warned"), [(0, False), (2, True), (286, True)])
def test_less_than_a_row_more_is_a_warning(surplus, warned):
    """Real archives pad."""
    image = read(dicom(PIXELS, PixelData=PIXELS.tobytes() + bytes(surplus)))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == (("surplus_pixel_bytes_ignored",) if warned else ())


def test_the_byte_that_makes_the_length_even_is_no_surplus():
    """PS3.5 7.1.1: all values have even lengths."""
    odd = GREY8[:159, :143].copy()
    assert read(dicom(odd, PixelData=odd.tobytes() + b"\0")).warnings == ()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_fragments_under_an_uncompressed_syntax_are_decoded(syntax):
    """Their heads are no pixels."""
    named = uid.JPEG2000Lossless.encode()
    data = dicom(PIXELS, uid.JPEG2000Lossless).replace(named, syntax.encode().ljust(22, b"\0"))
    image = read(data)
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ("transfer_syntax_contradicted",)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.RLELossless])
def test_plain_pixels_under_a_compressed_syntax_are_read(syntax):
    """Programs decompress, and forget to say so."""
    whole = dicom(PIXELS)
    at = whole.index(b"\x02\0\x10\0UI") + 6
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    data = whole[:at] + struct.pack("<H", len(value)) + value + whole[at + 22 :]
    image = read(data)
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ("transfer_syntax_contradicted",)


@pytest.mark.parametrize(
    ("pixels", "photometric"), [(PIXELS, "RGB"), (PIXELS, "MONOCHROME"), (RGB, "MONOCHROME2")]
)
def test_a_photometric_interpretation_of_another_image_is_a_warning(pixels, photometric):
    """Grey under the name of colour, and colour under that of grey."""
    image = read(dicom(pixels, PhotometricInterpretation=photometric))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS if pixels is PIXELS else GREY8)
    assert image.warnings == (COLOUR,)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless])
@pytest.mark.parametrize("missing", [None, ""])
def test_without_a_photometric_interpretation_there_is_no_polarity(syntax, missing):
    """An image of which none can say whether bone is bright is not answered."""
    with pytest.raises(CorruptImageError, match="has no PhotometricInterpretation"):
        read(dicom(PIXELS, syntax, PhotometricInterpretation=missing))


# Bits and sign of a frame


@pytest.mark.parametrize("syntax", [*WAVELETS, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
@pytest.mark.parametrize("says", [1, 4, 8, 10, 11])
def test_a_frame_has_more_bits_than_the_header_says(syntax, says):
    """PS3.5 8.2: the codestream has the say, and nothing is cut off at Bits Stored."""
    frame = CODECS[syntax](PIXELS, 12)
    image = read(encapsulated(frame, syntax, BitsStored=says, HighBit=says - 1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == (BITS,)


def test_an_extended_jpeg_has_12_bits():
    """PS3.5 Table 8.2.1-1, whatever Bits Stored and Bits Allocated say."""
    frame = CODECS[uid.JPEGExtended12Bit](PIXELS, 12)
    attributes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    image = read(encapsulated(frame, uid.JPEGExtended12Bit, **attributes))
    np.testing.assert_allclose(image.picture.pixels.astype(int), PIXELS, atol=12)
    assert image.warnings == (BITS,)


@pytest.mark.parametrize("syntax", [*WAVELETS, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
@pytest.mark.parametrize("signed", [False, True])
def test_a_frame_of_16_bits_may_hold_12(syntax, signed):
    """Encoders often declare Bits Allocated: that contradicts nothing."""
    values = PIXELS.astype(np.int16) - 2048 if signed else PIXELS
    frame = CODECS[syntax](values.view(np.uint16), 16)
    image = read(encapsulated(frame, syntax, BitsStored=12, PixelRepresentation=int(signed)))
    np.testing.assert_array_equal(image.picture.pixels, values)
    # JPEG 2000 could have said that its samples are signed
    assert image.warnings == ((SIGN,) if signed and syntax in WAVELETS else ())


@pytest.mark.parametrize("declared", [12, 16])
def test_overlays_above_the_pixels_are_masked(declared):
    """Retired, and left in by encoders that take all bits: text at a few bits is no anatomy."""
    values = PIXELS.copy()
    values[20:60:2, 20:90] |= 0x1000
    values[60:90, 30:100:3] |= 0x8000
    image = read(encapsulated(CODECS[uid.JPEGLosslessSV1](values, 16), uid.JPEGLosslessSV1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)


@pytest.mark.parametrize("syntax", [*WAVELETS, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
@pytest.mark.parametrize("stored", [12, 16])
def test_the_sign_lies_where_the_frame_has_its_highest_bit(syntax, stored):
    """Two's complement of the stream's precision, not of Bits Stored."""
    signed = PIXELS.astype(np.int16) - 2048
    bits = 12 if syntax in {uid.JPEG2000Lossless, uid.JPEGLosslessSV1} else 16
    frame = CODECS[syntax](signed.view(np.uint16) & np.uint16(2**bits - 1), bits)
    image = read(encapsulated(frame, syntax, BitsStored=stored, PixelRepresentation=1))
    np.testing.assert_array_equal(image.picture.pixels, signed)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_one_value_of_all_bits_tells_nothing_of_the_sign(value):
    """It is blank, without a warning of the computation."""
    with pytest.raises(BlankImageError):
        read_radiograph(dicom(np.full((64, 64), value, np.uint8)), PreprocessSpec())


@pytest.mark.parametrize("stored", [12, 13, 16])
def test_an_unsigned_frame_is_not_bent_by_a_header_that_says_signed(stored):
    """Where two's complement would tear the picture apart, the values are what they are."""
    frame = j2k(PIXELS, 12)
    image = read(encapsulated(frame, BitsStored=stored, PixelRepresentation=1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == (SIGN,)


def test_a_signed_frame_stays_signed_under_an_unsigned_header():
    """JPEG 2000 says itself that its samples are signed."""
    signed = PIXELS.astype(np.int16) - 2048
    image = read(encapsulated(j2k(signed, 12), PixelRepresentation=0))
    np.testing.assert_array_equal(image.picture.pixels, signed)
    assert image.warnings == (SIGN,)


@pytest.mark.parametrize("missing", ["BitsStored", "BitsAllocated", "HighBit"])
def test_a_frame_needs_no_bits_in_the_header(missing):
    """It has its own."""
    image = read(encapsulated(j2k(PIXELS, 12), **{missing: None}))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ()


@pytest.mark.parametrize("sign", [0, 1])
def test_values_that_are_noise_are_read_by_the_frame(sign):
    """No reading is smoother than another, so the first one stays."""
    noise = np.random.default_rng(0).integers(0, 2**16, (64, 64)).astype(np.uint16)
    frame = j2k(noise, 16)
    data = dicom(
        noise,
        uid.JPEG2000Lossless,
        BitsStored=12,
        PixelRepresentation=sign,
        PixelData=encapsulate([frame]),
    )
    np.testing.assert_array_equal(
        read(data).picture.pixels, noise.view(np.int16) if sign else noise
    )


# Colour


def jpeg_of(components: np.ndarray, **options) -> bytes:
    return bytes(imagecodecs.jpeg_encode(components, 98, **options))


def without_markers(frame: bytes) -> bytes:
    """Without JFIF and Adobe segments."""
    at, kept = 2, [frame[:2]]
    while frame[at + 1] != 0xDA:
        length = 2 + struct.unpack_from(">H", frame, at + 2)[0]
        if frame[at + 1] not in {0xE0, 0xEE}:
            kept.append(frame[at : at + length])
        at += length
    return b"".join([*kept, frame[at:]])


RAW_RGB = jpeg_of(RGB, colorspace="RGB", outcolorspace="RGB")
AS_YCBCR = jpeg_of(RGB)
THREE = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


@pytest.mark.parametrize(
    ("frame", "photometric", "samples", "warnings"),
    [
        (RAW_RGB, "RGB", 3, ()),
        (without_markers(RAW_RGB), "RGB", 3, ()),
        (without_markers(RAW_RGB), "YBR_FULL_422", 3, (COLOUR,)),
        (AS_YCBCR, "YBR_FULL_422", 3, ()),
        (AS_YCBCR, "RGB", 3, (COLOUR,)),
        (without_markers(AS_YCBCR), "YBR_FULL", 3, ()),
        (AS_YCBCR, "MONOCHROME2", 1, (COLOUR,)),
        (RAW_RGB, "MONOCHROME1", 1, (COLOUR,)),
        (j2k(RGB, 8), "YBR_RCT", 3, ()),
        (j2k(RGB, 8), "RGB", 3, ()),
        (j2k(YBR, 8, mct=False), "YBR_FULL", 3, ()),
        (j2k(YBR, 8, mct=False), "RGB", 3, (COLOUR,)),
        (j2k(RGB, 8), "MONOCHROME2", 1, (COLOUR,)),
        (bytes(imagecodecs.jpegls_encode(RGB)), "RGB", 3, ()),
        (bytes(imagecodecs.jpegls_encode(YBR)), "YBR_FULL", 3, ()),
    ],
)
def test_three_grey_components_are_read_as_grey(frame, photometric, samples, warnings):
    """Whatever transform, markers and header say of them."""
    attributes = THREE | {"SamplesPerPixel": samples, "PhotometricInterpretation": photometric}
    image = read(encapsulated(frame, uid.JPEGBaseline8Bit, **attributes))
    np.testing.assert_allclose(image.picture.pixels.astype(int), GREY8, atol=4)
    assert image.picture.inverted == (photometric == "MONOCHROME1")
    assert image.warnings == warnings


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "MONOCHROME2", "YBR_RCT"])
@pytest.mark.parametrize("frame", [jpeg_of(PHOTO), j2k(PHOTO, 8), j2k(PHOTO, 8, mct=False)])
def test_colour_is_colour_in_every_reading(frame, photometric):
    """A photograph is not grey by another transform."""
    samples = 1 if photometric == "MONOCHROME2" else 3
    attributes = THREE | {"SamplesPerPixel": samples, "PhotometricInterpretation": photometric}
    with pytest.raises(ColourImageError):
        read(encapsulated(frame, uid.JPEGBaseline8Bit, **attributes))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_colour_of_12_bits_is_colour(syntax):
    """What differs is judged by the bits that are in use, not by those that are allocated."""
    photo = PHOTO.astype(np.uint16) << 4
    with pytest.raises(ColourImageError):
        read(dicom(photo, syntax, BitsStored=12))


def test_another_number_of_components_is_corrupt():
    """Two are no image, and one is no colour."""
    with pytest.raises(CorruptImageError, match="1 samples per pixel, but the frame has 2"):
        read(encapsulated(j2k(RGB[..., :2].copy(), 8)))
    with pytest.raises(CorruptImageError, match="3 samples per pixel, but the frame has 1"):
        read(encapsulated(j2k(GREY8, 8), SamplesPerPixel=3))


# Fragments


def fragments(frame: bytes, count: int) -> list[bytes]:
    step = -(-len(frame) // count // 2) * 2
    frame += b"\0" * (len(frame) % 2)
    return [frame[at : at + step] for at in range(0, len(frame), step)]


def items(*values: bytes) -> bytes:
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value for value in values)


@pytest.mark.parametrize("syntax", [*WAVELETS, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
def test_the_offset_table_may_list_fragments(syntax):
    """Of one frame, which is not cut off at the second entry."""
    pieces = fragments(bytes(CODECS[syntax](PIXELS, 12)), 4)
    starts = np.cumsum([0, *(8 + len(piece) for piece in pieces[:-1])])
    packed = items(starts.astype("<u4").tobytes(), *pieces)
    np.testing.assert_array_equal(
        read(dicom(PIXELS, syntax, PixelData=packed)).picture.pixels, PIXELS
    )


@pytest.mark.parametrize("syntax", [*WAVELETS, uid.JPEGLosslessSV1, uid.JPEGLSLossless])
@pytest.mark.parametrize("count", [1, 3])
def test_the_offset_table_may_be_missing(syntax, count):
    """Then the first item is the frame, or begins it."""
    packed = items(*fragments(bytes(CODECS[syntax](PIXELS, 12)), count))
    np.testing.assert_array_equal(
        read(dicom(PIXELS, syntax, PixelData=packed)).picture.pixels, PIXELS
    )


def test_no_frame_is_said_to_be_none():
    """An empty offset table, and nothing else."""
    with pytest.raises(CorruptImageError, match="no frame"):
        read(dicom(PIXELS, uid.JPEG2000Lossless, PixelData=items(b"")))


# RLE


def literals(row: np.ndarray, *, pad: bool) -> bytes:
    """Bytes as RLE, in runs of 128; padded to an even number before they are coded."""
    data = row.tobytes() + b"\0" * (pad and len(row.tobytes()) % 2)
    return b"".join(
        bytes([len(data[at : at + 128]) - 1]) + data[at : at + 128]
        for at in range(0, len(data), 128)
    )


def rle(segments: list[bytes]) -> bytes:
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = np.cumsum([64, *map(len, segments)])
    assert all(a < b for a, b in pairwise(starts))
    return struct.pack(
        "<L15L", len(segments), *starts[:-1], *[0] * (15 - len(segments))
    ) + b"".join(segments)


@pytest.mark.parametrize("colour", [False, True])
def test_a_segment_may_decode_to_a_byte_more(colour):
    """PS3.5 G.3: decoding ends with the bytes of the frame; encoders pad before and after it."""
    odd = PIXELS[:159, :143]
    stored = (odd >> 4).astype(np.uint8) if colour else odd
    planes = [stored] * 3 if colour else [stored >> 8, stored & 255]
    segments = [literals(plane.astype(np.uint8), pad=True) for plane in planes]
    pixels = np.stack([stored] * 3, axis=2) if colour else odd
    data = dicom(pixels, uid.RLELossless, PixelData=encapsulate([rle(segments)]))
    np.testing.assert_array_equal(read(data).picture.pixels, stored)


@pytest.mark.parametrize("rows", [-1, 1])
def test_segments_of_another_number_of_rows_are_corrupt(rows):
    """As uncompressed pixels are."""
    segments = [literals((PIXELS >> 8).astype(np.uint8), pad=False)] * 2
    data = dicom(PIXELS, uid.RLELossless, Rows=160 + rows, PixelData=encapsulate([rle(segments)]))
    with pytest.raises(CorruptImageError, match="RLE"):
        read(data)


def test_a_frame_of_another_codec_than_is_named_is_read():
    """RLE under the name of JPEG, and JPEG under that of RLE: the frame shows what it is."""
    for holds, says in ((uid.RLELossless, uid.JPEG2000), (uid.JPEGLosslessSV1, uid.RLELossless)):
        data = dicom(PIXELS, holds, TransferSyntaxUID=says)
        np.testing.assert_array_equal(read(data).picture.pixels, PIXELS)


# Attributes in other forms


def other(keyword: str, vr: str, value) -> dict[str, DataElement]:
    return {keyword: DataElement(keyword, vr, value)}


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLosslessSV1])
@pytest.mark.parametrize(
    "attributes",
    [
        *({**other("Rows", vr, 160), **other("Columns", vr, 144)} for vr in ("UL", "SL", "SS")),
        {**other("Rows", "IS", "160"), **other("Columns", "DS", "144.0 ")},
        {**other("Rows", "OB", b"\xa0\0"), **other("BitsAllocated", "UL", 16)},
        other("HighBit", "OW", b"\x0b\0"),
        other("PixelRepresentation", "IS", "0"),
        other("NumberOfFrames", "LO", "1.0"),
        other("NumberOfFrames", "LO", " 1\0"),
        other("NumberOfFrames", "US", 1),
        other("NumberOfFrames", "LO", "  "),
        other("NumberOfFrames", "LO", "0"),
        {"HighBit": None},
    ],
    ids=str,
)
def test_a_whole_number_may_have_another_vr(syntax, attributes):
    """What it means is clear: dcm4che, fo-dicom and pydicom read these."""
    image = read(dicom(PIXELS, syntax, **attributes))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        (other("Rows", "IS", "160.5"), "Rows is no whole number"),
        (other("Rows", "UL", 2**20), "Rows is no whole number"),
        (other("Columns", "US", [144, 144]), "Columns is no whole number"),
        (other("Columns", "LO", "many"), "Columns is no whole number"),
        (other("Rows", "LO", "nan"), "Rows is no whole number"),
        ({"Columns": None}, "no Columns"),
        ({"PixelRepresentation": None}, "no PixelRepresentation"),
        ({"BitsAllocated": None}, "no BitsAllocated"),
        ({"SamplesPerPixel": None}, "no SamplesPerPixel"),
    ],
    ids=str,
)
def test_what_is_no_number_or_missing_is_named(attributes, says):
    """The keyword, never the value."""
    with pytest.raises(CorruptImageError, match=says):
        read(dicom(PIXELS, **attributes))


@pytest.mark.parametrize("vr", ["DS", "FD", "FL", "LO"])
def test_a_slope_may_have_another_vr(vr):
    """Its sign turns the picture, so it must not be lost."""
    value = -1.0 if vr in {"FD", "FL"} else "-1.0"
    image = read(dicom(PIXELS, RescaleIntercept="0", **other("RescaleSlope", vr, value)))
    assert image.picture.inverted
    assert image.warnings == ()


def test_a_lookup_table_of_a_signed_image_begins_below_zero():
    """Its descriptor may say US, as it did in objects before 2000."""
    signed = PIXELS.astype(np.int16) - 2048
    entry = Dataset()
    entry.add_new("LUTDescriptor", "US", [4096, 65536 - 2048, 12])
    entry.add_new("LUTData", "OW", np.arange(4096, dtype="<u2")[::-1].tobytes())
    image = read(dicom(signed, ModalityLUTSequence=Sequence([entry])))
    np.testing.assert_array_equal(image.picture.pixels, 4095 - PIXELS)


def test_a_lookup_table_that_is_cut_off_is_no_table_of_bytes():
    """Half a table of words, read as bytes, would be noise."""
    entry = Dataset()
    entry.add_new("LUTDescriptor", "US", [4096, 0, 12])
    entry.add_new("LUTData", "OW", np.arange(4000, dtype="<u2").tobytes())
    with pytest.raises(CorruptImageError, match="8000 bytes, and not 4096 entries"):
        read(dicom(PIXELS, ModalityLUTSequence=Sequence([entry])))


@pytest.mark.parametrize(
    ("syntax", "stored"),
    [(uid.ExplicitVRLittleEndian, 8), (uid.ExplicitVRLittleEndian, 10), (uid.RLELossless, 10)],
)
def test_uncompressed_pixels_of_more_bits_are_believed(syntax, stored):
    """Cut to Bits Stored, they would wrap again and again; overlays above would be rough."""
    image = read(dicom(PIXELS, syntax, BitsStored=stored, HighBit=stored - 1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ("bits_stored_contradicted",)


def test_a_sign_that_is_none_is_not_believed():
    """12 bits without a sign, in an object that says signed: the brightest would turn black."""
    image = read(dicom(PIXELS, PixelRepresentation=1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ("bits_stored_contradicted",)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_three_planes_is_found(planar):
    """Whatever Planar Configuration says: only one of the two readings has equal samples."""
    data = dicom(np.stack([GREY8] * 3, axis=2), PlanarConfiguration=planar)
    wrong = pydicom.dcmread(io.BytesIO(data))
    wrong.PlanarConfiguration = 1 - planar
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, wrong)
    np.testing.assert_array_equal(read(buffer.getvalue()).picture.pixels, GREY8)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEGLosslessSV1])
def test_a_sign_that_no_frame_can_say_is_looked_for(syntax):
    """These frames have no sign of their own; where the header invents one, values would wrap."""
    image = read(dicom(PIXELS, syntax, PixelRepresentation=1))
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    assert image.warnings == ("pixel_representation_contradicted",)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEGLosslessSV1])
@pytest.mark.parametrize("stored", [8, 10])
def test_bits_and_sign_may_both_be_wrong(syntax, stored):
    """A frame of 16 bits without a sign, in an object of fewer bits with one."""
    values = PIXELS << 4
    frame = CODECS[syntax](values, 16)
    image = read(encapsulated(frame, syntax, BitsStored=stored, PixelRepresentation=1))
    np.testing.assert_array_equal(image.picture.pixels, values)
    assert image.warnings == ("bits_stored_contradicted",)


def test_a_segmented_palette_is_named():
    """It is another attribute than the plain one, and not missing."""
    table = np.arange(256, dtype="<u2").tobytes()
    palettes = {}
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTableDescriptor"
        palettes[name] = DataElement(name, "US", [256, 0, 16])
        palettes[f"Segmented{colour}PaletteColorLookupTableData"] = table
    with pytest.raises(UnsupportedPixelFormatError, match="segmented"):
        read(dicom(GREY8, PhotometricInterpretation="PALETTE COLOR", **palettes))


def test_a_height_behind_the_scan_is_named():
    """DNL (T.81 B.2.5): the frame header says 0 rows."""
    frame = bytearray(jpeg_of(GREY8))
    at = frame.index(b"\xff\xc0")
    frame[at + 5 : at + 7] = bytes(2)
    frame[-2:-2] = b"\xff\xdc\0\4" + struct.pack(">H", len(GREY8))
    with pytest.raises(UnsupportedTransferSyntaxError, match="DNL"):
        read(encapsulated(bytes(frame), uid.JPEGBaseline8Bit))


@pytest.mark.parametrize("syntax", WAVELETS)
@pytest.mark.parametrize("bits", [12, 16])
def test_a_sign_that_the_frame_does_not_know_survives_a_reduced_size(syntax, bits):
    """Two's complement that was coded as unsigned jumps at zero; a reduced size would smear it."""
    plain = radiograph(480, 400)
    signed = (plain.astype(np.int32) - 2048).astype(np.int16)
    size = PreprocessSpec(size=64)
    tensor = read_radiograph(dicom(signed, syntax, BitsStored=bits), size).tensor
    expected = read_radiograph(dicom(plain), size).tensor
    assert np.abs(tensor.astype(int) - expected.astype(int)).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_a_sign_of_all_bits_is_looked_for_too(syntax, bits):
    """No bit is spare: read with the wrong sign, half of the values would jump."""
    unsigned = radiograph(160, 144, bits=bits).astype(f"u{bits // 8}")
    signed = (unsigned.astype(np.int32) - 2 ** (bits - 1)).astype(f"i{bits // 8}")
    for values, said in ((unsigned, 0), (signed, 1)):
        image = read(dicom(values, syntax))
        np.testing.assert_array_equal(image.picture.pixels, values)
        assert image.warnings == ()
        image = read(dicom(values, syntax, PixelRepresentation=1 - said))
        np.testing.assert_array_equal(image.picture.pixels, values)
        assert image.warnings == (SIGN,)


@pytest.mark.parametrize("planar", [0, 1])
def test_nearly_grey_planes_are_found_too(planar):
    """As after lossy compression: the samples of a pixel differ by one."""
    samples = np.stack([GREY8] * 3, axis=2) // 2
    samples[..., 1:] += np.random.default_rng(0).integers(0, 2, (160, 144, 2), np.uint8)
    wrong = pydicom.dcmread(io.BytesIO(dicom(samples, PlanarConfiguration=planar)))
    wrong.PlanarConfiguration = 1 - planar
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, wrong)
    found = read(buffer.getvalue()).picture.pixels
    assert np.abs(found.astype(int) - samples[..., 1]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_white_marks_on_a_dark_picture_are_no_sign(bits):
    """As -1 they would be nearly as dark as what is around them."""
    dark = (radiograph(160, 144, bits=bits) // 3).astype(f"u{bits // 8}")
    dark[:20], dark[40:80, 30:60] = 2**bits - 1, 2**bits - 1
    assert read(dicom(dark)).warnings == ()
