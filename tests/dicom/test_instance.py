"""Reading what a result needs of an object, whatever its header holds."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zlib

import pytest
from dicom_results import AT, STUDY, cards, instance, refused
from hostile import element, item
from hypothesis import example, given, settings
from hypothesis import strategies as st
from images import dicom, radiograph
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement

from service.dicom.event import event
from service.dicom.instance import (
    KEPT,
    PATIENT_AND_STUDY,
    InstanceError,
    Result,
    read_instance,
)
from service.dicom.instance import UIDS as UID_KEYWORDS
from service.dicom.observation import observation
from service.dicom.structured_report import structured_report
from service.imaging import CorruptImageError, ImageError

CARD = cards().plain
UIDS = {
    0x00080016: uid.ComputedRadiographyImageStorage,
    0x00080018: "1.2.3.4",
    0x0020000D: "1.2.3",
    0x0020000E: "1.2.3.1",
}
SETS = ["", "ISO_IR 100", "ISO_IR 192", "ISO_IR 13", "GB18030", "\\ISO 2022 IR 87", "ISO_IR 9"]
META = bytes(128) + b"DICM" + element(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")


def header(own: dict[int, bytes], more: bytes = b"") -> bytes:
    """A Part 10 file of encoded elements and UIDS; `more` follows SOP Instance UID."""
    uids = {tag: element(tag, b"UI", text.encode()) for tag, text in UIDS.items()}
    found = uids | {0x00080019: more} | own
    return META + b"".join(found[tag] for tag in sorted(found))


def test_a_result_has_what_the_standard_wants_repeated() -> None:
    """UIDs, the Patient and Study modules, and what the image says of itself."""
    data = instance(SpecificCharacterSet="ISO_IR 144", PatientName="Люксембург", PatientAge="060Y")
    source = read_instance(data)
    assert source.study_instance_uid == STUDY
    assert source.series_instance_uid == f"{STUDY}.1"
    assert source.sop_class_uid == uid.ComputedRadiographyImageStorage
    assert source.transfer_syntax_uid == uid.ExplicitVRLittleEndian
    found = {each.keyword: each.value for each in source.attributes}
    assert found == {
        "SpecificCharacterSet": "ISO_IR 144",
        "PatientName": "Люксембург",
        "PatientID": "4711",
        "PatientBirthDate": "19640229",
        "PatientSex": "F",
        "PatientAge": "060Y",
        "StudyDate": "20240229",
        "StudyTime": "101112.5",
        "StudyID": "77",
        "AccessionNumber": "A2024",
        "ReferringPhysicianName": "Smith^John",
        "Modality": "CR",
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
        "Rows": 160,
        "Columns": 140,
    }


@pytest.mark.parametrize(
    ("character_set", "stored", "text", "written_in"),
    [
        (None, b"Doe^Jane", "Doe^Jane", None),
        ("ISO_IR 100", b"M\xfcller", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", b"Mueller", "Mueller", None),
        ("ISO_IR 192", "Nguyễn".encode(), "Nguyễn", "ISO_IR 192"),
        ("ISO_IR 192", b"M\xfcller", "Müller", "ISO_IR 192"),  # not what it declares
        (None, "Müller".encode(), "Müller", "ISO_IR 192"),
        (None, b"M\xfcller", "Müller", "ISO_IR 192"),
        ("GB18030", "王^小東".encode("gb18030"), "王^小東", "GB18030"),
        ("ISO_IR 13", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ", "ISO_IR 192"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf", "김희중", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田^太郎", "ISO_IR 192"),
        ("nonsense", b"M\xfcller", "Müller", "ISO_IR 192"),
    ],
)
def test_names_are_read_in_every_character_set(character_set, stored, text, written_in) -> None:
    """And can be written again without loss, in their own or in UTF-8."""
    source = read_instance(
        dicom(
            radiograph(64, 64),
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.3.1",
            SpecificCharacterSet=character_set or "",
            PatientName=DataElement("PatientName", "PN", stored),
        )
    )
    assert source.attributes.PatientName == text
    assert source.attributes.get("SpecificCharacterSet") == written_in


@pytest.mark.parametrize(
    ("keyword", "stored", "kept"),
    [
        ("PatientBirthDate", "1964.02.29", "19640229"),
        ("PatientBirthDate", "19630229", None),
        ("PatientBirthDate", "unknown", None),
        ("StudyTime", "10:11:12", "101112"),
        ("StudyTime", "2500", None),
        ("PatientSex", "W", None),
        ("PatientAge", "60", None),
        ("PatientID", "  47 11  ", "47 11"),
        ("PatientID", "4711\0\0", "4711"),
        ("PatientID", "47\n11", None),
        ("PatientID", "9" * 100, "9" * 100),
        ("PatientID", "9" * 2000, None),
        ("IssuerOfPatientID", "9" * 100, "9" * 100),
        ("StudyID", "9" * 17, None),
        ("PatientName", "=".join(["A" * 64] * 3), "=".join(["A" * 64] * 3)),
        ("PatientName", "=".join(["A" * 64, "A" * 65]), None),
        ("TimezoneOffsetFromUTC", "MEZ", None),
        *(("TimezoneOffsetFromUTC", each, each) for each in ("+0000", "-1159", "-1200", "+1400")),
        *(("TimezoneOffsetFromUTC", each, None) for each in ("-0000", "-1201", "+1401", "+0060")),
        ("InstanceNumber", "many", None),
        ("Modality", "cr", "CR"),
    ],
)
def test_invalid_values_are_left_out_and_none_is_cut(keyword, stored, kept) -> None:
    """A cut Patient ID could be another patient's."""
    tag = tag_for_keyword(keyword) or 0
    own = element(tag, dictionary_VR(keyword).encode(), stored.encode())
    source = read_instance(header({tag: own}))
    value = source.attributes.get(keyword)
    assert (value if kept is None else str(value)) == kept


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "anonymous", "1.2." + "3" * 70, None])
def test_without_uids_there_is_no_instance(keyword, value) -> None:
    """The error names the attribute, and does not quote it."""
    data = instance(**{keyword: value} if value is not None else {keyword: ""})
    with pytest.raises(InstanceError, match=f"^{keyword} is missing or invalid$"):
        read_instance(data)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", bytes(1000), b"DICM", b"text" * 99])
def test_what_is_no_dicom_object_is_no_instance(data) -> None:
    """Nor is an empty file."""
    with pytest.raises(InstanceError):
        read_instance(data)


def test_a_header_that_is_cut_off_is_corrupt() -> None:
    """Within an element of which more was promised."""
    with pytest.raises(CorruptImageError):
        read_instance(header({}, element(0x00091001, b"UN", b"x", 2**31)))


def headers() -> st.SearchStrategy[bytes]:
    """Data sets of kept, private and unknown elements, sequences and lies about lengths."""
    raw = st.binary(max_size=80) | st.sampled_from(
        [b"", b"A" * 1100, b"\x1b$B;3", b"a\\b", b"19990101", b"\xff" * 64, b"12^34=\xc3\xbc"]
    )
    tags = st.sampled_from(sorted(tag for tag in KEPT if tag)) | st.sampled_from(
        [0x00090010, 0x00091001, 0x00100021, 0x0008103E, 0x00280010, 0x00081140, 0x00400275]
    )
    vrs = st.sampled_from(
        [b"AE", b"CS", b"DA", b"IS", b"LO", b"OB", b"PN", b"SH", b"SQ", b"TM", b"UI", b"UN", b"US"]
    )
    lies = st.none() | st.none() | st.integers(0, 200) | st.sampled_from([2**31, 2**32 - 1])

    @st.composite
    def data_set(draw: st.DrawFn) -> bytes:
        found = {tag: (b"UI", value.encode(), None) for tag, value in UIDS.items()}
        found[0x00080005] = b"CS", draw(st.sampled_from(SETS)).encode(), None
        for tag, vr, value, lie in draw(st.lists(st.tuples(tags, vrs, raw, lies), max_size=12)):
            nested = vr == b"SQ" and draw(st.booleans())
            found[tag] = vr, item(element(0x00100010, b"PN", value)) if nested else value, lie
        body = b"".join(element(tag, *found[tag]) for tag in sorted(found))
        if draw(st.booleans()):
            right = {tag: dictionary(tag) or vr for tag, (vr, _, _) in found.items()}
            body = b"".join(
                element(tag, right[tag], found[tag][1]) for tag in sorted(found)
            )  # all true but the values
        return META + body

    return data_set()


def dictionary(tag: int) -> bytes | None:
    return dictionary_VR(tag).encode() if tag in KEPT else None


@settings(max_examples=400, deadline=None)
@given(headers())
@example(
    header(
        {
            0x00080005: element(0x00080005, b"CS", b"\\ISO 2022 IR 87"),
            0x00100010: element(0x00100010, b"PN", b"\x1b$B;3"),
        }
    )
)
def test_any_header_is_read_or_refused_and_what_is_read_is_reported(data) -> None:
    """In no time, with the declared errors only."""
    start = time.perf_counter()
    try:
        source = read_instance(data)
    except (InstanceError, ImageError):
        return
    finally:
        assert time.perf_counter() - start < 2
    result = Result(source, CARD, AT, None, "blank_image")
    assert json.dumps([observation(result), event(result, "urn:x")]).isascii()
    report = structured_report(result)
    again = read_instance(report)
    assert again.study_instance_uid == source.study_instance_uid
    for keyword in PATIENT_AND_STUDY:
        assert again.attributes.get(keyword) == source.attributes.get(keyword)


@pytest.mark.parametrize(
    "large",
    [
        element(0x00091001, b"OB", bytes(2**25)),
        element(0x00091001, b"UN", b"", 2**32 - 1)
        + item(element(0x00091002, b"LO", b"x") * 40_000, 2**32 - 1)
        + struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0),
        element(0x00081140, b"SQ", item(element(0x00081150, b"UI", b"")) * 20_000),
        element(0x00100010, b"PN", b"x" * 60_000),
    ],
    ids=["private bytes", "private sequence", "many items", "long name"],
)
def test_memory_does_not_grow_with_the_header(large) -> None:
    """What is not kept is not copied."""
    data = header({}, large)
    read_instance(data)
    tracemalloc.start()
    source = read_instance(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.sop_instance_uid == "1.2.3.4"
    assert peak < 2**18


def test_a_deflated_object_is_read_and_a_bomb_refused() -> None:
    """By the same limit as its pixels."""
    meta = element(0x00020010, b"UI", uid.DeflatedExplicitVRLittleEndian.encode())
    body = b"".join(element(tag, b"UI", text.encode()) for tag, text in UIDS.items())
    for more, fits in ((b"", True), (element(0x7FE00010, b"OB", b"", 2**31) + bytes(2**29), False)):
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        data = bytes(128) + b"DICM" + meta + packer.compress(body + more) + packer.flush()
        if fits:
            assert read_instance(data).study_instance_uid == "1.2.3"
        else:
            with pytest.raises(ImageError):
                read_instance(data)


def test_no_repr_and_no_error_holds_what_the_header_says() -> None:
    """A patient's data may stand in any attribute."""
    others = {"SpecificCharacterSet", "InstanceNumber", "Rows", "Columns", *UID_KEYWORDS}
    texts = {
        keyword: DataElement(keyword, dictionary_VR(keyword), b"SECRET")
        for keyword in KEPT.values()
        if keyword not in others
    }
    result = refused(CARD, "blank_image", **texts)
    assert "SECRET" in str(result.source.attributes)
    assert "SECRET" not in repr(result) + str(result) + repr([result.source])
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        bad = DataElement(keyword, "UI", b"SECRET")
        with pytest.raises(InstanceError) as caught:
            read_instance(instance(**texts | {keyword: bad}))
        assert "SECRET" not in repr(caught.value) + str(caught.value.__cause__)


def test_each_kept_attribute_is_in_the_dictionary() -> None:
    """A misspelt keyword has no tag."""
    assert None not in KEPT
    assert all(tag_for_keyword(keyword) == tag for tag, keyword in KEPT.items())
