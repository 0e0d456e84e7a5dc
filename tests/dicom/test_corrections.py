"""What a person's decision changes in a header, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from lxml import etree
from pydicom.dataset import Dataset
from worklists import SERIES, STUDY, decided, finished

from service.cli import main
from service.dicom.corrections import (
    Change,
    Correction,
    CorrectionsError,
    change_of,
    coercion,
    dicom_json,
    read_corrections,
)
from service.imaging.header import ViewHeader

CODE, POSITION, BOTH, NOTHING = Change(True, False), Change(False, True), Change(True, True), None


@pytest.mark.parametrize(
    ("position", "code", "change"),
    [
        ("LL", None, BOTH),
        ("LATERAL", None, BOTH),
        (None, None, CODE),
        ("LLO", None, CODE),
        (None, "SCT:399067008", CODE),
        ("LL", "SCT:399067008", BOTH),
        ("PA", "SCT:399067008", CODE),
        ("RL", "SCT:399033003", POSITION),
        # A finer code of the same view stays, in any scheme
        ("LL", "SCT:272479007", POSITION),
        (None, "SRT:R-10206", NOTHING),
        # What is right stays as it is
        ("PA", None, NOTHING),
        ("AP", "99SITE:CHEST", NOTHING),
        ("LL", "99SITE:CHEST", BOTH),
    ],
)
def test_only_what_contradicts_changes(position, code, change) -> None:
    """The decision is frontal. No finer view is lost, and none is invented."""
    found = change_of(ViewHeader(position, view_code=code), "frontal")
    assert found == (change or Change(False, False))


def correction(view="frontal", position="LL", code=None, uid="1.2.3.4") -> Correction:
    return Correction(uid, STUDY, SERIES, view, ViewHeader(position, view_code=code))


@pytest.mark.parametrize(("view", "value"), [("frontal", "399033003"), ("lateral", "399067008")])
def test_dicom_json_is_a_data_set(view: str, value: str) -> None:
    """A reader of DICOM JSON takes it; the code is that of CID 4010."""
    position = "LL" if view == "frontal" else "PA"
    found = pydicom.Dataset.from_json(json.dumps(dicom_json(correction(view, position))))
    assert (found.SOPInstanceUID, found.StudyInstanceUID) == ("1.2.3.4", STUDY)
    (code,) = found.ViewCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == (value, "SCT", view)
    assert "ViewPosition" in found
    assert not found.ViewPosition
    assert len(found) == 5


def native(dataset: Dataset) -> etree._Element:
    """The Native DICOM Model of some data elements (PS3.19 A.1), as dcm4che writes it."""
    root = etree.Element("NativeDicomModel")

    def add(parent: etree._Element, some: Dataset) -> None:
        for element in some:
            name = {"tag": f"{element.tag:08X}", "vr": element.VR, "keyword": element.keyword}
            found = etree.SubElement(parent, "DicomAttribute", name)
            if element.VR == "SQ":
                for number, item in enumerate(element.value, 1):
                    add(etree.SubElement(found, "Item", number=str(number)), item)
            elif element.value:
                etree.SubElement(found, "Value", number="1").text = str(element.value)

    add(root, dataset)
    return root


def coded(value: str, **others: object) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "a code"
    for keyword, each in others.items():
        setattr(item, keyword, each)
    return item


def test_a_coercion_changes_its_instances_only() -> None:
    """The stylesheet runs; it copies the modifiers of the code that it replaces."""
    some = [
        correction(uid="1.2.3.1"),
        correction("lateral", "PA", uid="1.2.3.2"),
        correction("frontal", "LL", "SCT:399348003", uid="1.2.3.3"),
    ]
    apply = etree.XSLT(etree.fromstring(coercion(some).encode()))

    def coerced(uid: str) -> str:
        instance = Dataset()
        instance.SOPInstanceUID, instance.ViewPosition = uid, "LL"
        modifier = coded("399233009")
        instance.ViewCodeSequence = [coded("399067008", ViewModifierCodeSequence=[modifier])]
        return etree.tostring(apply(native(instance)), encoding="unicode")

    frontal, lateral, position, other = map(coerced, ("1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"))
    assert '<DicomAttribute tag="00185101" vr="CS"/>' in frontal
    assert '<Value number="1">399033003</Value>' in frontal
    assert "399067008" not in frontal
    assert "00540222" in frontal
    assert "399233009" in frontal
    assert '<Value number="1">399067008</Value>' in lateral
    assert "00540220" not in position
    assert '<DicomAttribute tag="00185101" vr="CS"/>' in position
    assert etree.fromstring(other).xpath("count(//DicomAttribute)") == 0
    assert etree.XSLT(etree.fromstring(coercion([]).encode()))(native(Dataset())) is not None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished(
        tmp_path / "run",
        {
            "1.2.3.1.1.1": {"view_position": "LL", "view_position_agrees": False},
            "1.2.3.1.1.2": {"view_position": "PA", "view_position_agrees": True},
            "1.2.3.1.1.3": {"view_position": "'=A1", "view_position_agrees": None},
        },
    )


def test_decisions_become_corrections(run: Path, tmp_path: Path) -> None:
    """An image without a decision has none, and a text that is marked for spreadsheets is read."""
    decisions = {"1.2.3.1.1.1": "Frontal", "1.2.3.1.1.2": " ", "1.2.3.1.1.3": "lateral"}
    accepted = decided(tmp_path / "accepted.csv", decisions)
    found = {each.sop_instance_uid: each for each in read_corrections(run, accepted)}
    assert found.keys() == {"1.2.3.1.1.1", "1.2.3.1.1.3"}
    assert found["1.2.3.1.1.1"].view == "frontal"
    assert found["1.2.3.1.1.1"].study_instance_uid == STUDY
    assert found["1.2.3.1.1.3"].header.view_position == "'=A1"


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        ({"1.2.3.1.1.1": "PA"}, "line 2: a decision is frontal or lateral"),
        ({"Doe^Jane": "frontal"}, "line 2: no valid SOP Instance UID"),
        ({"1.2.3.9": "frontal", "1.2.3.8": "lateral"}, "2 instances are not on the worklist, as"),
    ],
)
def test_a_decision_must_be_about_the_worklist(run, tmp_path, decisions, said) -> None:
    """Each error names the file, and what is wrong in it."""
    accepted = decided(tmp_path / "accepted.csv", decisions)
    with pytest.raises(CorrectionsError, match=said):
        read_corrections(run, accepted)


def test_two_decisions_about_one_image_must_agree(run: Path, tmp_path: Path) -> None:
    """The same decision twice is one."""
    accepted = tmp_path / "accepted.csv"
    accepted.write_text("sop_instance_uid,decision\n" + "1.2.3.1.1.1,frontal\n" * 2)
    assert len(read_corrections(run, accepted)) == 1
    accepted.write_text(accepted.read_text() + "1.2.3.1.1.1,lateral\n")
    with pytest.raises(CorrectionsError, match=r"line 4: 1\.2\.3\.1\.1\.1 is decided in two ways"):
        read_corrections(run, accepted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"uid;view\n", "has no column decision, sop_instance_uid"),
        (b"sop_instance_uid,decision,decision\n", "has two columns decision"),
        (b"sop_instance_uid,decision\n\xff,frontal\n", "cannot be read"),
        (b"", "has no column decision, sop_instance_uid"),
    ],
)
def test_a_file_of_decisions_must_be_one(run, tmp_path, capsys, text, said) -> None:
    """The command says what is wrong, and writes nothing."""
    accepted = tmp_path / "accepted.csv"
    if text is not None:
        accepted.write_bytes(text)
    assert main(["corrections", str(run), "--accepted", str(accepted)]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "corrections").exists()


def test_a_run_without_a_worklist_is_refused(tmp_path: Path, capsys) -> None:
    """As one that is not finished."""
    accepted = decided(tmp_path / "accepted.csv", {"1.2.3": "frontal"})
    assert main(["corrections", str(tmp_path), "--accepted", str(accepted)]) == 2
    assert "finish the backfill, or run `cxrview audit`" in capsys.readouterr().err


def test_the_command_writes_proposals(run: Path, tmp_path: Path, capsys) -> None:
    """Without an archive; an image whose header is right gets none."""
    accepted = decided(
        tmp_path / "accepted.csv", {"1.2.3.1.1.1": "frontal", "1.2.3.1.1.2": "frontal"}
    )
    assert main(["corrections", str(run), "--accepted", str(accepted)]) == 0
    assert "1 corrections in" in capsys.readouterr().err
    (proposed,) = json.loads((run / "corrections" / "dicom.json").read_text())
    assert proposed["00080018"]["Value"] == ["1.2.3.1.1.1"]
    assert "$uid='1.2.3.1.1.1'" in (run / "corrections" / "coercion.xsl").read_text()
    assert {path.name for path in (run / "corrections").iterdir()} == {"dicom.json", "coercion.xsl"}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["run", "--accepted", "a.csv", "--yes"],
        ["--undo", "log", "--apply", "http://127.0.0.1"],
        ["run", "--undo", "log"],
    ],
)
def test_options_that_contradict_each_other_are_refused(words, capsys) -> None:
    """Before a file is read."""
    assert main(["corrections", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
