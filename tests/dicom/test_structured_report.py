"""The report of a result: valid, the same each time, and read by other programs."""

from __future__ import annotations

import io
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from archive_servers import ORTHANCS, orthanc
from dicom_results import KINDS, STUDY, Cards, answered, cards, instance
from highdicom import sr
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.sr.codedict import codes
from tools import tool

from model_store import Prediction
from service.dicom.findings import IMAGE_VIEW, PRIVATE, Code, Quantity, findings
from service.dicom.instance import PATIENT_AND_STUDY, Result
from service.dicom.structured_report import structured_report

CARDS = cards()
FRONTAL_OR_LATERAL = {"399033003", "399067008"}


@pytest.fixture(params=KINDS)
def result(request) -> Result:
    """One of every kind."""
    return KINDS[request.param](CARDS)


def read(report: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(report))


def test_the_validator_finds_no_error(result, tmp_path) -> None:
    """`dciodvfy -new`; its exit code says nothing, so lines are counted."""
    assert errors(structured_report(result), tmp_path) == []


def errors(report: bytes, folder: Path) -> list[str]:
    """Of the validator."""
    path = folder / "report.dcm"
    path.write_bytes(report)
    run = subprocess.run(
        [tool("dicom3tools/dciodvfy"), "-new", path], capture_output=True, text=True, check=False
    )
    lines = (run.stdout + run.stderr).splitlines()
    assert "Comprehensive3DSR" in lines
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize(
    ("keyword", "stored"),
    [
        *(("PatientName", each) for each in ("A^B\\C^D", "A=B=C=D", "A^B^C^D^E^F", "A" * 65)),
        *(("ReferringPhysicianName", each) for each in ("A^B\\C^D", "A=B^C=" + "D" * 65)),
        *(("AccessionNumber", each) for each in ("1\\2", "1" * 17)),
        *(("StudyID", each) for each in ("1\\2", "1" * 17)),
        *(("StudyDescription", each) for each in ("1\\2", "1" * 65, "a\x07")),
        *((each, "47\n11\0\x1b") for each in ("PatientID", "IssuerOfPatientID", "StudyID")),
    ],
)
def test_invalid_values_of_the_image_make_no_invalid_report(keyword, stored, tmp_path) -> None:
    """They are left empty; none is cut or changed."""
    value = DataElement(keyword, dictionary_VR(keyword), stored.encode())
    report = structured_report(answered(CARDS.plain, Prediction(0.5), **{keyword: value}))
    assert errors(report, tmp_path) == []
    assert not read(report).get(keyword)


@pytest.mark.parametrize(
    ("keyword", "stored"),
    [
        ("PatientName", "^".join(["A" * 12] * 5)),
        ("ReferringPhysicianName", "A^^^^B"),
        ("AccessionNumber", "1" * 16),
        ("StudyDescription", "1" * 64),
        ("PatientID", "1" * 64),
        ("PatientID", "1 = 2 ^ 3"),
    ],
)
def test_the_longest_values_that_are_valid_are_kept(keyword, stored, tmp_path) -> None:
    """Those of the tests above are just beyond them."""
    report = structured_report(answered(CARDS.plain, Prediction(0.5), **{keyword: stored}))
    assert errors(report, tmp_path) == []
    assert str(read(report).get(keyword)) == stored


def test_dcmtk_reads_it(result, tmp_path) -> None:
    """As text and as a page, with each value of the result."""
    path, page = tmp_path / "report.dcm", tmp_path / "report.html"
    path.write_bytes(structured_report(result))
    run = subprocess.run(
        [tool("dcmtk/dsrdump"), "+U8", "+Pl", path], capture_output=True, check=True
    )
    subprocess.run([tool("dcmtk/dsr2html"), "+U8", path, page], capture_output=True, check=True)
    for text in (run.stdout.decode(), page.read_text()):
        assert "Imaging Measurement Report" in text
        for name, value in findings(result):
            assert name.meaning in text
            assert shown(value) in text


def shown(value: Code | bool | Quantity) -> str:
    if isinstance(value, Quantity):
        return f"{value.value:.6f}"
    return value.meaning if isinstance(value, Code) else ("No", "Yes")[value]


def test_highdicom_reads_the_same_values(result) -> None:
    """As a report by TID 1500 with one group about the image, and all findings in order."""
    report = sr.srread(io.BytesIO(structured_report(result)))
    assert isinstance(report, sr.Comprehensive3DSR)
    (group,) = report.content.get_image_measurement_groups()
    source = result.source
    is_image = "Image Storage" in uid.UID(source.sop_class_uid).name
    images = [
        (each.referenced_sop_class_uid, each.referenced_sop_instance_uid)
        for each in group.source_images
    ]
    assert images == [(source.sop_class_uid, source.sop_instance_uid)] * is_image
    items = {
        (item.name.value, item.name.scheme_designator): item
        for item in group[0].ContentSequence
        if item.relationship_type == sr.RelationshipTypeValues.CONTAINS
    }
    for name, value in findings(result):
        item = items[name.value, name.scheme]
        assert item.name.meaning == name.meaning
        if isinstance(value, Quantity):
            assert (item.value, item.unit.value) == (value.value, value.unit)
            assert item.MeasuredValueSequence[0].NumericValue == value.value
        elif isinstance(value, bool):
            assert item.value == (codes.cid230.No, codes.cid230.Yes)[value]
        else:
            assert item.value == sr.CodedConcept(*value)
    assert len(items) == len(findings(result)) + is_image


def test_it_says_which_algorithm_it_was(result) -> None:
    """TID 4019 and the observing device: name, version, and the weights' hash."""
    report = sr.srread(io.BytesIO(structured_report(result)))
    card = result.card
    (group,) = report.content.get_image_measurement_groups()
    said = {
        item.name.meaning: item.value
        for item in group[0].ContentSequence
        if item.name.value in {"111001", "111003"}
    }
    assert said == {"Algorithm Name": card.name, "Algorithm Version": card.version}
    parameters = [i.value for i in group[0].ContentSequence if i.name.value == "111002"]
    assert parameters[:2] == [f"sha256={card.model_sha256}", f"threshold={card.threshold}"]
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.serial_number == card.model_sha256
    assert (report.Manufacturer, report.SoftwareVersions) == ("cxrview", card.version)
    assert report.DeviceSerialNumber == card.model_sha256


def test_it_lies_in_the_study_of_its_patient(result) -> None:
    """With the same UIDs and texts, and the image as evidence of the same procedure."""
    report, source = read(structured_report(result)), result.source
    assert report.StudyInstanceUID == source.study_instance_uid
    for keyword in PATIENT_AND_STUDY:
        assert report.get(keyword, "") == source.attributes.get(keyword, "")
    evidence = sr.srread(io.BytesIO(structured_report(result))).get_evidence()
    assert evidence == [
        (
            source.study_instance_uid,
            source.series_instance_uid,
            source.sop_instance_uid,
            source.sop_class_uid,
        )
    ]
    assert report.Modality == "SR"
    assert report.CompletionFlag == ("PARTIAL" if result.classification is None else "COMPLETE")
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_a_second_report_is_the_same(result) -> None:
    """Byte for byte, so a delivery may be repeated."""
    assert structured_report(result) == structured_report(replace(result))


def test_a_report_is_that_of_highdicom() -> None:
    """What is replaced in the encoded report leaves a report that pydicom writes just so."""
    for make in KINDS.values():
        report = read(structured_report(make(CARDS)))
        buffer = io.BytesIO()
        report.save_as(buffer, enforce_file_format=True)
        assert read(buffer.getvalue()) == report


def test_the_uids_follow_from_image_and_model() -> None:
    """One report an image and model version; one series a study and model version."""

    def uids(cards: Cards, name: str, **attributes: str) -> tuple[str, str]:
        card = getattr(cards, name)
        report = read(structured_report(answered(card, Prediction(0.5), **attributes)))
        assert report.SOPInstanceUID == report.file_meta.MediaStorageSOPInstanceUID
        assert report.SOPInstanceUID.is_valid
        return report.SOPInstanceUID, report.SeriesInstanceUID

    first, series = uids(CARDS, "plain")
    assert uids(CARDS, "plain") == (first, series)
    other_image = uids(CARDS, "plain", SOPInstanceUID="1.2.3")
    assert other_image[0] != first
    assert other_image[1] == series
    other_model = uids(CARDS, "headed")
    assert not {*other_model} & {first, series}
    assert uids(CARDS, "plain", StudyInstanceUID="1.2.4")[1] != series
    refused = KINDS["refused"](CARDS)
    assert read(structured_report(refused)).SOPInstanceUID != first
    assert read(structured_report(refused)).SOPInstanceUID.startswith("2.25.")


@pytest.fixture
def zone(monkeypatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone of the process."""

    def set_to(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("local", "offset", "day", "clock", "observed"),
    [
        ("UTC0", None, "20260304", "230607.089000", "20260304230607+0000"),
        ("CET-1", None, "20260305", "000607.089000", "20260305000607+0100"),
        ("NST3:30", None, "20260304", "193607.089000", "20260304193607-0330"),
        ("CET-1", "-0000", "20260305", "000607.089000", "20260305000607+0100"),
        ("CET-1", "+0000", "20260304", "230607.089000", "20260304230607+0000"),
        ("CET-1", "+0530", "20260305", "043607.089000", "20260305043607+0530"),
        ("UTC0", "-0200", "20260304", "210607.089000", "20260304210607-0200"),
    ],
)
def test_times_are_local_or_in_the_zone_of_the_source(
    zone, local, offset, day, clock, observed
) -> None:
    """The offset of the source says what its own times mean, so it is kept, and holds for ours.

    Without one, its times are those of the wall clock beside the modality, and so are ours.
    """
    zone(local)
    attributes = {} if offset is None else {"TimezoneOffsetFromUTC": offset}
    report = read(structured_report(answered(CARDS.plain, Prediction(0.5), **attributes)))
    assert report.get("TimezoneOffsetFromUTC") == (None if offset == "-0000" else offset)
    assert (report.ContentDate, report.ContentTime) == (day, clock)
    assert (report.InstanceCreationDate, report.InstanceCreationTime) == (day, clock)
    assert report.ObservationDateTime == observed


def test_no_report_names_a_projection() -> None:
    """A frontal image may be PA or AP; the Standard's codes for the two views do not say which."""
    for make in KINDS.values():
        result = make(CARDS)
        views = [value for name, value in findings(result) if name == IMAGE_VIEW]
        assert {each.value for each in views if isinstance(each, Code)} <= {
            "399033003",
            "399067008",
        }
        assert len(views) == (result.problem is None and result.classification.view != "not_chest")
        report = read(structured_report(result))
        assert "ViewPosition" not in report
        own = [name for name, _ in findings(result) if name.scheme == PRIVATE]
        assert all(len(name.value) <= 16 and len(name.meaning) <= 64 for name in own)


@pytest.mark.parametrize("release", ORTHANCS)
def test_orthanc_files_by_patient_id_so_that_it_is_kept(release, tmp_path) -> None:
    """Even one that is invalid; with another or none, the report would be in another study."""
    with orthanc(tmp_path, release) as server:
        for number, patient in enumerate((b"A\\B", b"C" * 80)):
            uids = {"SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.4.{number}"}
            ids = {"PatientID": DataElement("PatientID", "LO", patient)}
            image = instance(**uids, **ids)
            result = answered(CARDS.plain, Prediction(0.5), **uids, **ids)
            server.store([image, structured_report(result)])
        with urllib.request.urlopen(f"{server.root}/studies?expand", timeout=10) as answer:
            studies = json.load(answer)
        assert [len(study["Series"]) for study in studies] == [2, 2]


@pytest.mark.parametrize("release", ORTHANCS)
def test_orthanc_keeps_it_in_the_study_of_the_image(release, tmp_path) -> None:
    """And gives it back as it was sent; sent twice, it is there once."""
    with orthanc(tmp_path, release) as server:
        reports = [
            structured_report(KINDS[kind](CARDS)) for kind in ("all heads", "refused", "all heads")
        ]
        server.store([instance(), *reports])

        def get(path: str) -> bytes:
            with urllib.request.urlopen(f"{server.root}/{path}", timeout=10) as answer:
                return answer.read()

        (study,) = json.loads(get("studies?expand"))
        assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY
        assert study["PatientMainDicomTags"]["PatientName"] == "Doe^Jane"
        series = json.loads(get(f"studies/{study['ID']}/series"))
        assert sorted(each["MainDicomTags"]["Modality"] for each in series) == ["CR", "SR", "SR"]
        instances = [each for one in series for each in one["Instances"]]
        files = {get(f"instances/{each}/file") for each in instances}
        assert files == {instance(), *reports}
