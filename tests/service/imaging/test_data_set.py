"""Objects without the preamble of Part 10, or without File Meta Information."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from images import CODECS, NATIVE, dicom, jpeg, png, radiograph
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate

from model_store import PreprocessSpec
from service.imaging import read_radiograph, sniff
from service.imaging.dicom import read_dicom
from service.imaging.errors import CorruptImageError, UnrecognisedFormatError

FULL_SIZE = 2**31
PIXELS = radiograph(72, 64)
GREY8 = (PIXELS >> 4).astype(np.uint8)
SPEC = PreprocessSpec(size=32)
BEFORE = 132  # bytes of preamble and prefix
PLAIN = [syntax for syntax in NATIVE if syntax != uid.DeflatedExplicitVRLittleEndian]


def data_set(data: bytes, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """The object without preamble and File Meta Information."""
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    return data[data.index(struct.pack(f"{order}HH", 0x0008, 0x0016), BEFORE) :]


def picture(syntax: str) -> np.ndarray:
    return GREY8 if syntax == uid.JPEGBaseline8Bit else PIXELS


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless, *CODECS])
@pytest.mark.parametrize(
    "cut",
    [lambda data: data[BEFORE:], lambda data: data[128:], lambda data: bytes(128) + data[BEFORE:]],
    ids=["no preamble", "prefix only", "no prefix"],
)
def test_an_object_without_preamble_is_read(syntax, cut):
    """Its File Meta Information shows what it is, and names its transfer syntax."""
    whole = dicom(picture(syntax), syntax)
    data = cut(whole)
    assert sniff(data) == sniff(data[:512]) == "dicom"
    found, expected = read_dicom(data, FULL_SIZE), read_dicom(whole, FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, expected.picture.pixels)
    assert (found.transfer_syntax, found.warnings) == (expected.transfer_syntax, ())


@pytest.mark.parametrize("syntax", [*PLAIN, uid.RLELossless, *CODECS])
@pytest.mark.parametrize("prefix", [b"", bytes(128) + b"DICM"], ids=["bare", "preamble"])
def test_an_object_without_file_meta_is_read(syntax, prefix):
    """Its transfer syntax shows in its elements, and of fragments in the frame."""
    whole = dicom(picture(syntax), syntax)
    data = prefix + data_set(whole, syntax)
    assert sniff(data) == sniff(data[:512]) == "dicom"
    found, expected = read_dicom(data, FULL_SIZE), read_dicom(whole, FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, expected.picture.pixels)
    assert (found.transfer_syntax, found.warnings) == (None, ("transfer_syntax_missing",))


def test_a_file_meta_that_names_no_syntax_is_no_hindrance():
    """As where there is none."""
    found = read_dicom(dicom(PIXELS, TransferSyntaxUID=None), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, PIXELS)
    assert found.warnings == ("transfer_syntax_missing",)


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize(
    "first",
    [
        {"SpecificCharacterSet": "ISO_IR 100"},
        {"SpecificCharacterSet": ""},
        {"ImageType": ["DERIVED", "PRIMARY"], "SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"InstanceCreationDate": "20200229"},
        {"LengthToEnd": DataElement(0x00080001, "UL", 9000)},
    ],
    ids=["charset", "empty", "image type", "date", "length to end"],
)
def test_a_data_set_may_begin_with_any_identifying_attribute(syntax, first):
    """With group 8, in every encoding."""
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    whole = dicom(
        PIXELS, syntax, **{key: value for key, value in first.items() if key != "LengthToEnd"}
    )
    at = whole.index(struct.pack(f"{order}HH", 2, 0x0010))
    bare = whole[whole.index(struct.pack(f"{order}H", 8), at + 8 + 18) :]
    start = next(
        bare.index(struct.pack(f"{order}HH", 8, number))
        for number in (0x0005, 0x0008, 0x0012, 0x0016)
        if struct.pack(f"{order}HH", 8, number) in bare
    )
    data = bare[start:]
    if "LengthToEnd" in first:
        implicit = syntax == uid.ImplicitVRLittleEndian
        head = (
            struct.pack("<HHL", 8, 1, 4)
            if implicit
            else struct.pack(f"{order}HH2sH", 8, 1, b"UL", 4)
        )
        data = head + struct.pack(f"{order}L", 9000) + data
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


def test_the_data_show_the_byte_order():
    """Named as big endian, written as little: the first element shows it."""
    named, holds = uid.ExplicitVRBigEndian.encode(), uid.ExplicitVRLittleEndian.encode()
    data = dicom(PIXELS).replace(holds + b"\0", named + b"\0")
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x08\0\x16\0UI\x1a\0" + b"Jane Doe" * 40, "begins with a group of DICOM"),
        (b"\x08\0\x16\0XX\x1a\0" + b"1.2.840" * 40, "begins with a group of DICOM"),
        (b"\x08\0\x05\0\xff\xff\xff\x7f" + bytes(300), "begins with a group of DICOM"),
        (b"\x02\0\0\0UL\x04\0\xb0\0\0\0", "begins with a group of DICOM"),
        (b"\0\x08\0\x05CS\0\x0a", "begins with a group of DICOM"),
        (data_set(dicom(PIXELS))[4:], "neither DICOM"),
    ],
)
def test_what_only_resembles_dicom_is_refused_by_name(data, says):
    """What is missing is said, and nothing of what stands there."""
    with pytest.raises(UnrecognisedFormatError, match=says) as caught:
        read_radiograph(data, SPEC)
    assert "Jane" not in str(caught.value)


def test_an_object_of_nonsense_behind_a_plausible_start_is_corrupt():
    """It is DICOM, and damaged."""
    with pytest.raises(CorruptImageError):
        read_radiograph(data_set(dicom(PIXELS))[:200] + b"\xff" * 5000, SPEC)


def test_other_files_are_not_taken_for_dicom():
    """Random bytes, also behind groups of DICOM; text, tables, pictures and archives."""
    rng = random.Random(0)
    others = [
        *(rng.randbytes(600) for _ in range(2000)),
        *(
            start + rng.randbytes(600)
            for start in (b"\x08\0", b"\x02\0", b"\0\x08")
            for _ in range(2000)
        ),
        *(b"\x08\0\x05\0" + rng.randbytes(600) for _ in range(2000)),
        *(np.sort(np.arange(k, 600 + k, dtype="<u2")).tobytes() for k in range(20)),
        *(np.full(600, k, kind).tobytes() for k in range(20) for kind in ("<u2", "<u4", ">u2")),
        bytes(600),
        b"\x08\0" * 300,
        b"name,view\r\na.dcm,PA\r\n" * 40,
        b"\0\0\1\0\1\0\x10\x10" + bytes(600),
    ]
    for data in others:
        with pytest.raises(UnrecognisedFormatError):
            sniff(data)
    assert sniff(png(GREY8)) == "png"
    assert sniff(jpeg(GREY8)) == "jpeg"


def test_a_bare_object_of_fragments_keeps_its_frame_whole():
    """Joined fragments, without the name of a syntax."""
    frame = bytes(CODECS[uid.JPEGLSLossless](PIXELS, 12))
    packed = encapsulate([frame], fragments_per_frame=3)
    data = data_set(dicom(PIXELS, uid.JPEGLSLossless, PixelData=packed))
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)
