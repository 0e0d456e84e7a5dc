from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from images import CODECS, NATIVE, dicom, radiograph
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from service.imaging.attributes import WANTED
from service.imaging.dicom import read_dicom
from service.imaging.elements import read_elements
from service.imaging.errors import CorruptImageError
from service.imaging.walk import MAX_ELEMENTS

FULL_SIZE = 2**31
PIXELS = radiograph(72, 64)
FOUND = ["RG1_UNCR.dcm", "RG1_J2KR.dcm", "RG3_UNCI.dcm", "explicit_VR-UN.dcm", "bad_sequence.dcm"]
FOUND += ["SC_rgb_expb.dcm", "OBXXXX1A_rle.dcm", "mlut_18.dcm", "eCT_Supplemental.dcm"]


def nested(depth: int, undefined: bool) -> Sequence:
    """Sequences within sequences, of either kind of length, with a picture's pixels at the end."""
    item = Dataset()
    item.Rows = 5  # of an icon, say, and not of the image
    item.PixelData = b"\0\0" * 25
    item["PixelData"].VR = "OW"
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([item, Dataset(), item])
        outer["ReferencedImageSequence"].is_undefined_length = undefined
        for inner in outer.ReferencedImageSequence:
            inner.is_undefined_length_sequence_item = undefined
        item = outer
    return item.ReferencedImageSequence


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One element of explicit VR with a length of 16 bits."""
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def before_pixels(data: bytes, extra: bytes) -> bytes:
    """The file with elements put in before Rows."""
    at = data.index(struct.pack("<HH", 0x0028, 0x0002))
    return data[:at] + extra + data[at:]


@pytest.mark.parametrize("name", FOUND)
def test_the_values_are_those_that_pydicom_finds(name):
    """Whatever lies between them: sequences, private elements, unknown and wrong VRs."""
    data = Path(get_testdata_file(name, download=False)).read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.update(dataset.file_meta)
    elements = read_elements(memoryview(data))
    for keyword in WANTED.values():
        expected = dataset.get(keyword)
        if isinstance(expected, int) and keyword != "NumberOfFrames":
            assert elements.integer(keyword) == expected % 65536, keyword
        else:
            expected = str(expected).strip().upper() if expected is not None else None
            assert elements.text(keyword) == (expected or None), keyword
    assert elements.modality_lut == ("ModalityLUTSequence" in dataset)
    assert bytes(elements.pixels.value[:999]) == dataset.PixelData[:999]


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [*NATIVE, uid.JPEGLosslessSV1])
def test_sequences_are_passed_over(syntax, undefined):
    """What an item holds is not the image's own."""
    data = dicom(PIXELS, syntax, ReferencedStudySequence=nested(5, undefined))
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


def test_an_implicit_sequence_within_an_explicit_object_is_passed_over():
    """UN of undefined length holds elements of implicit VR (PS3.5 6.2.2), and some SQ do."""
    inner = struct.pack("<HHL", 0x0028, 0x0010, 2) + b"\5\0"
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    items += struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for vr in (b"UN", b"SQ"):
        head = struct.pack("<HH2sHL", 0x0021, 0x1001, vr, 0, 0xFFFFFFFF)
        data = before_pixels(dicom(PIXELS), head + items)
        np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


@pytest.mark.parametrize(
    ("says", "holds"),
    [
        (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
        (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian),
    ],
)
def test_the_first_element_shows_whether_vrs_are_explicit(says, holds):
    """Some writers name the other transfer syntax; pydicom reads those too."""
    first = struct.pack("<HH", 0x0008, 0x0016)
    meta, body = dicom(PIXELS, says), dicom(PIXELS, holds)
    data = meta[: meta.index(first)] + body[body.index(first) :]
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


def test_uncompressed_pixels_are_a_view():
    """The body of a request is not copied."""
    data = dicom(PIXELS)
    for body in (data, memoryview(data)):
        assert np.shares_memory(
            read_dicom(body, FULL_SIZE).picture.pixels, np.frombuffer(data, np.uint8)
        )


@pytest.mark.parametrize("syntax", [uid.RLELossless, *CODECS])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_frame_in_fragments_is_joined(syntax, table, pieces):
    """With a Basic Offset Table or without, in one fragment or several."""
    pixels = (PIXELS >> 4).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else PIXELS
    whole = dicom(pixels, syntax)
    frame = next(generate_frames(pydicom.dcmread(io.BytesIO(whole)).PixelData, number_of_frames=1))
    packed = encapsulate([frame], fragments_per_frame=pieces, has_bot=table)
    expected = read_dicom(whole, FULL_SIZE).picture.pixels
    found = read_dicom(dicom(pixels, syntax, PixelData=packed), FULL_SIZE).picture.pixels
    np.testing.assert_array_equal(found, expected)


def test_the_first_of_several_frames_is_taken():
    """Where the Basic Offset Table holds more than Number of Frames says."""
    frames = [bytes(CODECS[uid.JPEGLSLossless](picture, 12)) for picture in (PIXELS, PIXELS // 2)]
    packed = encapsulate(frames, fragments_per_frame=2, has_bot=True)
    found = read_dicom(dicom(PIXELS, uid.JPEGLSLossless, PixelData=packed), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, PIXELS)


def test_encapsulated_pixels_of_a_defined_length_are_read():
    """Not as the Standard has it, but found."""
    frame = bytes(CODECS[uid.JPEGLosslessSV1](PIXELS, 12))
    value = encapsulate([frame])
    data = dicom(PIXELS, uid.JPEGLosslessSV1)
    head = data[: data.index(b"\xe0\x7f\x10\x00")]
    packed = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, len(value)) + value
    np.testing.assert_array_equal(read_dicom(head + packed, FULL_SIZE).picture.pixels, PIXELS)


EMPTY = element(0x0009, 0x0010, b"LO", b"")
ENDLESS = struct.pack("<HH2sHL", 0x0021, 0x1001, b"SQ", 0, 0xFFFFFFFF)
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (EMPTY * (MAX_ELEMENTS + 1), "more than"),
        (ENDLESS + ITEM + EMPTY * (MAX_ELEMENTS + 1), "more than"),
        ((ENDLESS + ITEM) * MAX_ELEMENTS, "damaged|more than"),
        (ENDLESS + EMPTY, "something else than items"),
        (struct.pack("<HH2sHL", 0x0009, 0x1010, b"UN", 0, 2**30), "cut off within its header"),
        (element(0x0028, 0x0004, b"CS", b"X" * 2000), "PhotometricInterpretation has 2000 bytes"),
    ],
    ids=["many", "many-nested", "deep", "no-items", "beyond-the-end", "long-value"],
)
def test_a_header_without_end_or_sense_is_refused(extra, says):
    """Neither a long loop nor deep recursion nor a huge value comes of it."""
    with pytest.raises(CorruptImageError, match=says):
        read_dicom(before_pixels(dicom(PIXELS), extra), FULL_SIZE)


def test_pixel_data_of_too_many_fragments_are_refused():
    """Empty fragments cost time and hold nothing."""
    data = dicom(PIXELS, uid.JPEGLosslessSV1)
    at = data.index(b"\xe0\x7f\x10\x00") + 12
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 2**17
    with pytest.raises(CorruptImageError, match="fragments"):
        read_dicom(data[:at] + empty + data[at:], FULL_SIZE)


def test_padding_takes_its_sign_from_the_pixels():
    """The VR of Pixel Padding Value is US or SS as Pixel Representation says, explicit or not."""
    padded = PIXELS.astype(np.int16) - 2000
    padded[:20] = -3000
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian):
        value = DataElement("PixelPaddingValue", "US", 65536 - 3000)
        image = read_dicom(dicom(padded, syntax, PixelPaddingValue=value), FULL_SIZE)
        np.testing.assert_array_equal(image.picture.padding, padded == -3000)


def test_a_damaged_uid_is_not_repeated():
    """A wrong length may put other attributes, a patient's, behind it."""
    data = dicom(PIXELS, SOPClassUID="1.2.840.10008.5.1.4.1.1.2").replace(
        b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008 DOE^JANE    ", 3
    )
    with pytest.raises(Exception, match="an invalid UID is not accepted"):
        read_dicom(data, FULL_SIZE)


@pytest.mark.parametrize(("depth", "refused"), [(50, False), (51, True), (20_000, True)])
def test_sequences_lie_in_each_other_so_deep_and_no_deeper(depth, refused):
    """Without recursion, and deeper than in any header; an item counts as well."""
    head = struct.pack("<HH2s2xL", 8, 0x1140, b"SQ", 2**32 - 1)
    start = head + struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    data = before_pixels(dicom(PIXELS), start * depth + ends * depth)
    if refused:
        with pytest.raises(CorruptImageError, match="deep"):
            read_dicom(data, FULL_SIZE)
    else:
        np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


UNKNOWN = "HH2sHL"  # the head of UN: group, element, VR, reserved, length


def private(order: str, *values: bytes, implicit: bool = True, vr: bytes = b"OB") -> bytes:
    """A private sequence as UN of undefined length, with these values in one item."""
    inner = b"".join(
        struct.pack("<HHL" if implicit else "<HH2sHL", 0x0021, 0x1010 + index, *head, len(value))
        + value
        for index, value in enumerate(values)
        for head in [[] if implicit else [vr, 0]]
    )
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1) + inner
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return struct.pack(f"{order}{UNKNOWN}", 0x0021, 0x1001, b"UN", 0, 2**32 - 1) + item + ends


@pytest.mark.parametrize("vr", [b"BO", b"OB", b"SH", b"UN", b"SQ", b"UL"])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_what_lies_in_an_unknown_sequence_is_implicit(syntax, vr):
    """PS3.5 6.2.2: little endian, too. The low bytes of a length may look like a VR."""
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data = dicom(PIXELS, syntax)
    at = data.index(struct.pack(f"{order}HH", 0x0028, 0x0002))
    sequence = private(order, bytes(int.from_bytes(vr, "little") & ~1), b"after it")
    np.testing.assert_array_equal(
        read_dicom(data[:at] + sequence + data[at:], FULL_SIZE).picture.pixels, PIXELS
    )


@pytest.mark.parametrize("vr", [b"OB", b"UT", b"UN"])
def test_an_unknown_sequence_that_is_explicit_is_read_too(vr):
    """Some writers keep the encoding of the object."""
    sequence = private("<", bytes(30), b"after it", implicit=False, vr=vr)
    np.testing.assert_array_equal(
        read_dicom(before_pixels(dicom(PIXELS), sequence), FULL_SIZE).picture.pixels, PIXELS
    )


def test_an_unknown_sequence_lies_in_another():
    """Within a sequence of explicit VR, its items are implicit, and what follows is not."""
    start = struct.pack("<HH2s2xL", 8, 0x1140, b"SQ", 2**32 - 1)
    start += struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    inner = private("<", bytes(0x424E)) + element(0x0021, 0x1020, b"SH", b"BOBO")
    data = before_pixels(dicom(PIXELS), start + inner + ends)
    np.testing.assert_array_equal(read_dicom(data, FULL_SIZE).picture.pixels, PIXELS)


@pytest.mark.parametrize(
    "hostile",
    [
        (struct.pack(f"<{UNKNOWN}", 0x21, 0x1001, b"UN", 0, 2**32 - 1) + ITEM) * 300_000,
        (struct.pack(f"<{UNKNOWN}", 0x21, 0x1001, b"UN", 0, 2**32 - 1) + ITEM + EMPTY) * 300_000,
        private("<", b"")[:-8] * 300_000,
    ],
    ids=["deep", "deep, with elements", "without ends"],
)
def test_unknown_sequences_without_end_are_refused(hostile):
    """Reading them twice neither recurses for ever nor takes the square of their number."""
    with pytest.raises(CorruptImageError):
        read_dicom(before_pixels(dicom(PIXELS), hostile), FULL_SIZE)
