from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import NATIVE, dicom, radiograph
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from model_store import Prediction, PreprocessSpec
from service.imaging import (
    Origin,
    ViewHeader,
    read_radiograph,
    read_sop_instance_uid,
    tidy,
    valid_uid,
)
from service.imaging.dicom import read_dicom
from service.imaging.errors import CorruptImageError
from service.inference import Classification

FULL_SIZE = 2**31
PIXELS = radiograph(40, 36)
THIS_YEAR = datetime.now(UTC).year
SAYS: dict[str, Any] = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.3",
    "Modality": "DX",
    "StationName": "Unit 1 ",
    "StudyDate": "20190228",
    "PatientOrientation": ["L", "F"],
}


def code_item(value: str | None = "399348003", scheme: str | None = "SCT", **more: Any) -> Dataset:
    item = Dataset()
    if value is not None:
        item.CodeValue = value
    if scheme is not None:
        item.CodingSchemeDesignator = scheme
    item.CodeMeaning = "antero-posterior"
    for keyword, each in more.items():
        setattr(item, keyword, each)
    return item


def origin(data: bytes) -> Origin:
    return read_dicom(data, FULL_SIZE).origin


def header(data: bytes) -> ViewHeader:
    return read_dicom(data, FULL_SIZE).header


def raw(keyword: str, value: bytes, vr: bytes = b"LO") -> bytes:
    """An element as a careless writer leaves it, of explicit VR."""
    tag = Tag(keyword)
    form = "<HH2s2xL" if vr in {b"OB", b"SQ", b"UN", b"UT"} else "<HH2sH"
    return struct.pack(form, tag.group, tag.element, vr, len(value)) + value


def with_raw(extra: bytes, **attributes: Any) -> bytes:
    """A file with elements put in before Samples per Pixel, which stand there out of order."""
    data = dicom(PIXELS, **attributes)
    at = data.index(struct.pack("<HH", 0x0028, 0x0002))
    return data[:at] + extra + data[at:]


@pytest.mark.parametrize("syntax", [*NATIVE, uid.JPEGLosslessSV1, uid.RLELossless])
@pytest.mark.parametrize("undefined", [True, False])
def test_whence_an_image_comes(syntax, undefined):
    """However the object is encoded; the name of the station keeps its case."""
    sequence = Sequence([code_item(), code_item("399067008")])
    for item in sequence:
        item.is_undefined_length_sequence_item = undefined
    codes = DataElement(Tag("ViewCodeSequence"), "SQ", sequence, is_undefined_length=undefined)
    image = read_dicom(dicom(PIXELS, syntax, **SAYS, ViewCodeSequence=codes), FULL_SIZE)
    study, series = SAYS["StudyInstanceUID"], SAYS["SeriesInstanceUID"]
    assert image.origin == Origin(study, series, "DX", "Unit 1", "2019-02")
    assert image.header == ViewHeader("PA", "L\\F", "SCT:399348003")


@pytest.mark.parametrize(
    ("name", "station", "month", "orientation"),
    [
        ("RG1_UNCR.dcm", "THORAVISION", "1995-09", "L\\F"),  # studied in 2004, by its header
        ("RG3_UNCR.dcm", None, "1992-12", "R\\F"),
    ],
)
def test_a_real_object_says_it_all(name, station, month, orientation):
    """The UIDs are those that pydicom finds; the month is that of the exposure."""
    data = Path(get_testdata_file(name, download=False)).read_bytes()
    dataset = pydicom.dcmread(get_testdata_file(name, download=False), stop_before_pixels=True)
    found = origin(data)
    study, series = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
    assert found == Origin(study, series, "CR", station, month)
    assert header(data).patient_orientation == orientation


def test_an_object_that_says_nothing_has_no_origin():
    """None, and no empty text; a PNG or JPEG has not even that."""
    assert origin(dicom(PIXELS, Modality=None)) == Origin()
    empty = dict.fromkeys(SAYS, "") | {"ViewCodeSequence": Sequence([])}
    data = dicom(PIXELS, **empty)
    assert origin(data) == Origin()
    assert header(data) == ViewHeader("PA")


@pytest.mark.parametrize(
    ("dates", "month"),
    [
        ({"AcquisitionDate": "20110131", "ContentDate": "20120229"}, "2011-01"),
        ({"AcquisitionDate": "00000000", "ContentDate": "20120229"}, "2012-02"),
        ({"AcquisitionDate": "20110230", "StudyDate": "20121231"}, "2012-12"),
        ({"AcquisitionDate": "20111301", "ContentDate": "", "StudyDate": "19691231"}, None),
        ({"StudyDate": "2012.04.30"}, "2012-04"),
        ({"StudyDate": "2012-04-30"}, "2012-04"),
        ({"StudyDate": "2012.04-30"}, None),
        ({"StudyDate": "20120430 "}, "2012-04"),
        ({"StudyDate": "19700101"}, "1970-01"),
        ({"StudyDate": "201204"}, None),
        ({"StudyDate": "20120430\\20120501"}, None),
        ({"StudyDate": "anonymised"}, None),
        ({"StudyDate": f"{THIS_YEAR}0101"}, f"{THIS_YEAR}-01"),
        ({"StudyDate": f"{THIS_YEAR + 1}0101"}, None),
        ({"StudyDate": "99991231"}, None),
        ({"StudyDate": "²⁰120430"}, None),
    ],
    ids=str,
)
def test_the_month_is_of_the_first_plausible_date(dates, month):
    """Zeros, days that no calendar has, clocks that were reset and the future are no dates."""
    extra = b"".join(raw(keyword, value.encode(), b"DA") for keyword, value in dates.items())
    assert origin(with_raw(extra)).month == month


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"L\\F", "L\\F"),
        (b"l\\f ", "L\\F"),
        (b" L \\ F ", "L\\F"),
        (b"L", "L"),
        (b"L\\", "L\\"),
        (b"\\", "\\"),
        (b"L\\F\0", "L\\F"),
        (b"L\\\0F", "L\\F"),
        (b"  ", None),
    ],
)
def test_patient_orientation_is_kept_as_it_is_meant(value, says):
    """Padding within and case are not meant; half of it stands there, but claims nothing."""
    found = header(with_raw(raw("PatientOrientation", value, b"CS")))
    assert found.patient_orientation == says
    assert found.view_by_orientation == ("frontal" if says == "L\\F" else None)


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([code_item("R-10206", "SNM3")], "SNM3:R-10206"),
        ([code_item("r-10206 ", " srt")], "SRT:R-10206"),
        ([code_item(None, LongCodeValue="399348003")], "SCT:399348003"),
        ([code_item(None, CodeMeaning="x" * 64, LongCodeValue="1" * 17)], f"SCT:{'1' * 17}"),
        ([code_item(None)], None),
        ([code_item("")], None),
        ([code_item("399348003", None)], None),
        ([code_item("399348003", "")], None),
        ([code_item("1" * 64)], None),
        ([Dataset(), code_item()], None),
        ([code_item(ViewModifierCodeSequence=Sequence([code_item("1")]))], "SCT:399348003"),
        ([code_item(EquivalentCodeSequence=Sequence([code_item("1")] * 50))], "SCT:399348003"),
        ([code_item(EquivalentCodeSequence=Sequence([code_item("1")]), CodeValue=None)], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_the_first_view_code_is_taken_with_its_scheme(items, code, syntax):
    """Whatever else an item holds; a value without scheme, or a scheme without value, is none."""
    found = header(dicom(PIXELS, syntax, ViewCodeSequence=Sequence(items)))
    assert found.view_code == code


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_body_part_is_read_in_every_encoding(syntax):
    """Its case is not meant."""
    found = header(dicom(PIXELS, syntax, BodyPartExamined="Chest"))
    assert found == ViewHeader("PA", body_part_examined="CHEST")
    assert found.body_part_agrees(False) is False


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"CHEST \0", "CHEST"),
        (b"CHE\1ST", "CHE ST"),
        (b"HAND\0CHEST", "HAND CHEST"),
        (b"HAND\r\nCHEST\r\n", "HAND CHEST"),
        (b"HA\0ND", "HA ND"),
        (b"  ", None),
        (b"CHEST" * 13, None),
    ],
)
def test_a_body_part_is_tidy_or_left_out(value, says):
    """It never refuses an image; control characters separate words, as a reader sees them."""
    assert header(with_raw(raw("BodyPartExamined", value, b"CS"))).body_part_examined == says


@pytest.mark.parametrize("vr", [b"SQ", b"FD", b"OB", b"US", b"AT"])
def test_a_body_part_that_is_no_text_is_left_out(vr):
    """Its bytes may spell a word by chance; text of another kind is still text."""
    assert header(with_raw(raw("BodyPartExamined", b"CHEST ", vr))).body_part_examined is None
    for text in (b"CS", b"LO", b"SH", b"UT", b"UN"):
        found = header(with_raw(raw("BodyPartExamined", b"CHEST ", text)))
        assert found.body_part_examined == "CHEST"


ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
CODE = raw("CodeValue", b"399348003 ", b"SH") + raw("CodingSchemeDesignator", b"SCT ", b"SH")
LONG_MEANING = raw("CodeMeaning", b"x" * 2000) + raw("LongCodeValue", b"1234", b"LO")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (ITEM + CODE, "SCT:399348003"),  # the item never ends, the sequence does
        (struct.pack("<HHL", 0xFFFE, 0xE000, 5000) + CODE, "SCT:399348003"),  # longer than it is
        (struct.pack("<HHL", 0xFFFE, 0xE000, 18) + CODE, None),  # only its value is within the item
        (ITEM + CODE[:-1], None),
        (ITEM + CODE[:12], None),
        (ITEM[:6], None),
        (CODE, None),  # no item
        (struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + CODE, None),
        (ITEM + CODE[18:] + LONG_MEANING, None),  # cut before the value
        (b"\xff" * 40, None),
        (b"\0" * 40, None),
        (b"399348003", None),
    ],
)
def test_a_damaged_view_code_sequence_is_silent(value, code):
    """The image is read as before."""
    tag = Tag("ViewCodeSequence")
    head = struct.pack("<HH2sHL", tag.group, tag.element, b"SQ", 0, len(value))
    image = read_dicom(with_raw(head + value), FULL_SIZE)
    assert image.header == ViewHeader("PA", None, code)
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)


@pytest.mark.parametrize("keyword", [*SAYS, "SpecificCharacterSet", "ViewCodeSequence"])
@pytest.mark.parametrize("value", [b"x" * 65, b"1" * 3000, b"\xe4" * 1024, b"\x1b$)C" * 9])
def test_a_value_that_is_too_long_is_left_out(keyword, value):
    """It spoils nothing else; of what the pixels depend on, it is still an error."""
    image = read_dicom(with_raw(raw(keyword, value, b"LO")), FULL_SIZE)
    for each in (*vars(image.origin).values(), *vars(image.header).values()):
        assert each is None or len(each) <= 64
    assert image.header.view == "frontal"
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)
    with pytest.raises(CorruptImageError, match="RescaleSlope has 3000 bytes"):
        read_dicom(with_raw(raw("RescaleSlope", b"1" * 3000, b"DS")), FULL_SIZE)


def test_an_attribute_of_undefined_length_is_left_out():
    """UN of undefined length holds items (PS3.5 6.2.2), whatever the attribute should be."""
    tag = Tag("StationName")
    head = struct.pack("<HH2sHL", tag.group, tag.element, b"UN", 0, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    assert origin(with_raw(head + ITEM + ends)) == Origin(modality="CR")


@pytest.mark.parametrize(
    ("declared", "value", "station"),
    [
        (b"ISO_IR 100", "Röntgen".encode("latin-1"), "Röntgen"),
        (b"ISO_IR 192", "Röntgen 東京".encode(), "Röntgen 東京"),
        (b"ISO_IR 144", "Рентген".encode("iso8859-5"), "Рентген"),
        (b"ISO_IR 13", "ｼﾂ 1".encode("shift_jis"), "ｼﾂ 1"),
        (b"\\ISO 2022 IR 87", b"A\x1b$B<<\x1b(B1", "A室1"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"A\x1b$B<<\x1b(J1", "A室1"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"GB18030", "胸片".encode("gb18030"), "胸片"),
        (b"", "Röntgen".encode(), "Röntgen"),
        (b"", "Röntgen".encode("latin-1"), "Röntgen"),
        (b"", b"A\x1b$B<<\x1b(B1", "A$B<<(B1"),  # nothing says what the escapes mean
        (b"ISO_IR 100", b"Unit\0\1\n 1", "Unit 1"),
        (b"ISO_IR 192", "Röntgen".encode("latin-1"), None),  # it is not what is declared
        (b"ISO_IR 100 or so", b"R\xf6ntgen", "Röntgen"),
        (b"ISO_IR 100", b"\0\0", None),
    ],
)
def test_a_station_is_read_in_its_character_set(declared, value, station):
    """Declared ones, else UTF-8, else Latin-1; what does not fit is left out, not guessed."""
    extra = raw("SpecificCharacterSet", declared, b"CS") + raw("StationName", value, b"SH")
    assert origin(with_raw(extra)).station == station


@given(st.text(max_size=80) | st.none())
def test_tidy_text_can_be_stored_anywhere(text):
    """No control characters, no padding, at most 64; once tidy, it stays so."""
    found = tidy(text)
    assert tidy(found) == found
    if found is not None:
        assert found.isprintable()
        assert found == found.strip()
        assert 0 < len(found.encode().decode()) <= 64


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1.2.826.0.1.3680043.8.498.1", True),
        ("1.2", True),
        ("1.2.0034", True),  # a leading zero, as some devices write
        ("1." * 31 + "1", True),
        ("1." * 32 + "1", False),
        ("7" * 150, False),
        ("0", False),
        ("ANONYMISED", False),
        ("", False),
        (None, False),
        ("1.2.3\n", False),
        ("1.2.3\n4", False),
        ("1.2\0.3", False),
        ("1.2.3 4", False),
        ("1.2\\3.4", False),
        ("1..2", False),
        ("1.2.", False),
        ("\N{SUPERSCRIPT TWO}.2", False),
        ("\N{ARABIC-INDIC DIGIT TWO}.2", False),
        ("\x1b[31m1", False),
        ("<script>", False),
    ],
)
def test_a_uid_is_kept_whole_or_not_at_all(text, is_one):
    """Characters that are taken away would make one of two."""
    assert valid_uid(text) == (text if is_one else None)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize(
    "value", [b"1.2.3\n4", b"1\x002.3", b"\x1b[31m1", b"<script>", b"7" * 150, b"\xff\xfe", b"0"]
)
def test_what_is_no_uid_is_left_out_of_every_answer(keyword, value, version):
    """Nor does it refuse the image."""
    data = dicom(PIXELS, **{keyword: "1.2.3"}).replace(
        raw(keyword, b"1.2.3\0", b"UI"), raw(keyword, value + b"\0" * (len(value) % 2), b"UI")
    )
    found = read_radiograph(data, PreprocessSpec())
    assert getattr(found.origin, str(KEYS.get(keyword)), found.sop_instance_uid) is None
    if keyword == "SOPInstanceUID":
        assert Classification.of(found, Prediction(0.9), version.card).sop_instance_uid is None
        assert read_sop_instance_uid(data) is None


KEYS = {"StudyInstanceUID": "study_instance_uid", "SeriesInstanceUID": "series_instance_uid"}


@pytest.mark.parametrize("syntax", NATIVE)
def test_the_uid_is_found_in_the_first_elements_as_in_the_whole(syntax):
    """In every encoding, and without File Meta Information; a deflated object is not unpacked."""
    data = dicom(PIXELS, syntax, SOPInstanceUID="1.2.3.4", SpecificCharacterSet="ISO_IR 100")
    assert read_dicom(data, FULL_SIZE).sop_instance_uid == "1.2.3.4"
    deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    assert read_sop_instance_uid(data) == (None if deflated else "1.2.3.4")
    assert read_sop_instance_uid(dicom(PIXELS, syntax, SOPInstanceUID=None)) is None
    for end in range(0, 600, 7):  # cut anywhere
        assert read_sop_instance_uid(data[:end]) in {None, "1.2.3.4"}


VALUES = st.binary(max_size=90) | st.text("\\ISO_R 2019GBK\x1b$)C(B87", max_size=40).map(str.encode)


@given(st.lists(st.tuples(st.sampled_from([*SAYS, "SpecificCharacterSet"]), VALUES), max_size=6))
@settings(max_examples=500, deadline=None)
def test_nothing_that_stands_there_spoils_an_image(pairs):
    """Random values of every attribute, alone and together: each is read, or left out."""
    extra = b"".join(raw(keyword, value) for keyword, value in pairs)
    image = read_dicom(with_raw(extra), FULL_SIZE)
    for each in (*vars(image.origin).values(), *vars(image.header).values()):
        assert each is None or (each == tidy(each) and "\0" not in each)
    assert image.origin.study_instance_uid == valid_uid(image.origin.study_instance_uid)
    np.testing.assert_array_equal(image.picture.pixels, PIXELS)


DESCRIBED = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "StudyDescription",
)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("keyword", DESCRIBED)
def test_a_description_claims_the_view_that_it_names(keyword, syntax):
    """Of each attribute alone; whichever it is says its keyword."""
    found = header(dicom(PIXELS, syntax, **{keyword: "CHEST LAT"}))
    assert (found.described_view, found.claimed_by) == ("lateral", keyword)
    assert found.described_view_agrees("frontal") is False
    assert found.agrees("frontal") is True
    silent = header(dicom(PIXELS, syntax, **{keyword: "CHEST PA AND LATERAL"}))
    assert (silent.described_view, silent.claimed_by) == (None, None)
    assert silent.described_view_agrees("frontal") is None


def test_the_first_description_that_names_a_view_claims_it():
    """The series is nearer to the image than the study."""
    said = {"SeriesDescription": "Chest", "ProtocolName": "THORAX PA", "StudyDescription": "LAT"}
    found = header(dicom(PIXELS, **said))
    assert (found.described_view, found.claimed_by) == ("frontal", "ProtocolName")


@pytest.mark.parametrize(
    ("declared", "value", "view"),
    [
        (b"ISO_IR 192", "胸部側面".encode(), "lateral"),
        (b"\\ISO 2022 IR 87", "胸部正面".encode("iso2022_jp"), "frontal"),
        (b"ISO_IR 144", "ОГК боковая".encode("iso8859-5"), "lateral"),
        (b"ISO_IR 100", "Tórax PERFIL".encode("latin-1"), "lateral"),
        (b"ISO_IR 192", b"\xff\xfe LAT", None),
        (b"", b"x" * 2000 + b" LAT", None),
    ],
)
def test_a_description_is_read_in_its_character_set(declared, value, view):
    """What does not fit, or is too long for any header, names nothing."""
    extra = raw("SpecificCharacterSet", declared, b"CS") + raw("SeriesDescription", value)
    assert header(with_raw(extra)).described_view == view


def test_the_text_of_a_description_goes_nowhere():
    """Neither into the header that leaves the decoder nor into whatever prints it."""
    said = dict.fromkeys(DESCRIBED, "CHEST LAT ZEBRA^ANNA")
    image = read_radiograph(dicom(PIXELS, **said), PreprocessSpec())
    assert image.header is not None
    assert (image.header.described_view, image.header.claimed_by) == ("lateral", DESCRIBED[0])
    assert "zebra" not in repr((vars(image.header), vars(image.origin), image)).lower()


def test_an_answer_does_not_say_whence_the_image_comes(version):
    """Neither does the repr of the radiograph."""
    zebra = dict.fromkeys(("StationName", "StudyInstanceUID", "Modality"), "Zebra")
    data = dicom(PIXELS, **{**SAYS, **zebra}, ViewCodeSequence=Sequence([code_item("ZEBRA")]))
    radiograph = read_radiograph(data, PreprocessSpec())
    assert radiograph.origin is not None
    assert radiograph.origin.station == "Zebra"
    answer = Classification.of(radiograph, Prediction(0.9), version.card).model_dump_json()
    assert "zebra" not in answer.lower()
    assert "2019" not in answer
    assert "zebra" not in repr(radiograph).lower()
