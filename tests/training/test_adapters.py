"""Manifests out of the tables that public sets publish, or out of folders."""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import pytest

from training.data.adapters import LAYOUTS, view_of
from training.data.make_manifest import Exclusion, adapt, adapt_folder, add_command, write_manifest
from training.data.manifest import ManifestError, Row, read_manifest

COVID = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,"
    "went_icu,in_icu,needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,"
    "neutrophil_count,lymphocyte_count,view,modality,date,location,folder,filename,doi,url,license,"
    "clinical_notes,other_notes,\n"
    '2,0,M,65,x,Y,Y,N,N,N,N,Y,,,,,,,PA,X-ray,"January 22, 2020",,images,a.jpeg,,,,"One,\ntwo",,\n'
    "5,,,,x,,,Y,Y,Y,Y,,,,,,,,L,X-ray,2017,,images,b.png,,,CC BY-SA,,,\n"
    "5,,,,x,,,Y,Y,Y,Y,,,,,,,,Axial,CT,2017,,volumes,c.nii.gz,,,CC BY-SA,,,\n"
)
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.14300000000000002,0.14300000000000002,\n"
    "00000002_000.png,No Finding,0,2,80,M,AP,2500,2048,0.171,0.171,\n"
)
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,"
    ",,,,,,,,0.0,,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Female,87,Lateral,,"
    ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,\n"
    "CheXpert-v1.0-small/train/view3.jpg,Female,87,Frontal,PA,,,,,,,,,,,,,,\n"
)
MIMIC = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning\n"
    "02aa804e,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,2180,213,x,postero-anterior,Erect\n"
    "174413ec,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,2180,213,x,lateral,Erect\n"
    "2a2277a9,10000032,53189527,CHEST,LAO,3056,2544,2180,213,x,,\n"
    "e084de3b,10000032,53911762,CHEST,,3056,2544,2180,213,x,,\n"
)
PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM\n"
    "0,20536686.png,0,20140915,20536686,839860488,1930.0,F,POSTEROANTERIOR,PA,Manual,No,CR\n"
    "1,20536687.png,12,20140915,20536686,839860488,1930.0,F,,L,Manual,No,CR\n"
    "2,20536688.png,0,20140915,20536686,839860488,1930.0,F,ANTEROPOSTERIOR,AP_horizontal,x,No,CR\n"
    "3,20536689.png,0,20140915,20536686,839860488,1930.0,F,,COSTAL,Manual,No,CR\n"
)
OPENI = (
    "imageid,Modality,View Position\n"
    "CXR1_1_IM-0001-3001,CR,LL\n"
    "CXR1000_IM-0003-1001,CR,\n"
    "CXR1021_IM-0017-1001-0001,CR,PA\n"
    "CXR9_IM-2407-1001,CR,PA\n"
)
OPENI_LABELS = (
    "file_name,file_path,image_view\n"
    "1_IM-0001-3001.dcm,/data/NLMCXR_dcm/1/1_IM-0001-3001.dcm,F\n"
    "1000_IM-0003-1001.dcm,/data/NLMCXR_dcm/1000/1000_IM-0003-1001.dcm,L\n"
    "1021_IM-0017-1001-0001.dcm,/data/NLMCXR_dcm/1021/1021_IM-0017-1001-0001.dcm,F\n"
    "7_IM-0001-3001.dcm,/data/NLMCXR_dcm/7/7_IM-0001-3001.dcm,F\n"
)
TABLES = {
    "covid-chestxray": COVID,
    "nih": NIH,
    "chexpert": CHEXPERT,
    "mimic": MIMIC,
    "padchest": PADCHEST,
    "openi-png": OPENI,
    "openi-dicom": OPENI,
}
ROWS = {  # file, view, patient, View Position
    "covid-chestxray": [
        ("images/a.jpeg", "frontal", "covid-chestxray-2", ""),
        ("images/b.png", "lateral", "covid-chestxray-5", ""),
    ],
    "nih": [
        ("images/00000001_000.png", "frontal", "nih-chestxray14-1", ""),
        ("images/00000002_000.png", "frontal", "nih-chestxray14-2", ""),
    ],
    "chexpert": [
        (
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
            "frontal",
            "chexpert-patient00001",
            "",
        ),
        (
            "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg",
            "lateral",
            "chexpert-patient00002",
            "",
        ),
    ],
    "mimic": [
        (f"files/p10/p10000032/s50414267/{name}.jpg", view, "mimic-cxr-jpg-10000032", position)
        for name, view, position in (
            ("02aa804e", "frontal", "PA"),
            ("174413ec", "lateral", "LATERAL"),
        )
    ],
    "padchest": [
        ("0/20536686.png", "frontal", "padchest-839860488", "POSTEROANTERIOR"),
        ("12/20536687.png", "lateral", "padchest-839860488", ""),
        ("0/20536688.png", "frontal", "padchest-839860488", "ANTEROPOSTERIOR"),
    ],
    "openi-png": [
        ("CXR1_1_IM-0001-3001.png", "frontal", "openi-1", "LL"),
        ("CXR1000_IM-0003-1001.png", "lateral", "openi-1000", ""),
        ("CXR1021_IM-0017-1001-0001.png", "frontal", "openi-1021", "PA"),
    ],
    "openi-dicom": [
        ("1/1_IM-0001-3001.dcm", "frontal", "openi-1", "LL"),
        ("1000/1000_IM-0003-1001.dcm", "lateral", "openi-1000", ""),
        ("1021/1021_IM-0017-1001-0001.dcm", "frontal", "openi-1021", "PA"),
    ],
}
UNKNOWN = ("7_IM-0001-3001", "labelled, but not in table.csv")
EXCLUSIONS = {
    "covid-chestxray": [("volumes/c.nii.gz", "modality is 'CT'")],
    "nih": [],
    "chexpert": [("CheXpert-v1.0-small/train/view3.jpg", "no patient is stated")],
    "mimic": [
        ("files/p10/p10000032/s53189527/2a2277a9.jpg", "view is 'LAO'"),
        ("files/p10/p10000032/s53911762/e084de3b.jpg", "no view is stated"),
    ],
    "padchest": [("0/20536689.png", "view is 'COSTAL'")],
    "openi-png": [("CXR9_IM-2407-1001.png", "no view is stated"), UNKNOWN],
    "openi-dicom": [("9/9_IM-2407-1001.dcm", "no view is stated"), UNKNOWN],
}


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["manifest", *map(str, words)])
    options.run_command(options)


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_public_set_becomes_rows_and_exclusions(tmp_path: Path, kind: str) -> None:
    """Every image that a set lists is a row or an exclusion with its reason."""
    labels = table(tmp_path, OPENI_LABELS, "labels.csv") if kind.startswith("openi") else None
    found = list(adapt(kind, table(tmp_path, TABLES[kind]), labels))
    rows = [item for item in found if isinstance(item, Row)]
    assert [(row.file, row.view, row.patient_id, row.header) for row in rows] == ROWS[kind]
    assert all(row.source and row.licence and row.origin for row in rows)
    assert [item for item in found if isinstance(item, Exclusion)] == EXCLUSIONS[kind]


def test_a_licence_is_each_images_own(tmp_path: Path) -> None:
    """Where a set is of many origins, an image without a licence is said to have none."""
    found = adapt("covid-chestxray", table(tmp_path, COVID))
    licences = [item.licence for item in found if isinstance(item, Row)]
    assert licences == ["not stated", "CC BY-SA"]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_missing_column_is_named(tmp_path: Path, kind: str) -> None:
    """A table of another layout is told by what it lacks, gzipped or not."""
    labels = table(tmp_path, OPENI_LABELS, "labels.csv")
    metadata = table(tmp_path, "a,b\n1,2\n", "table.csv.gz")
    with pytest.raises(
        ManifestError, match=f"table.csv.gz has no column {LAYOUTS[kind].columns[0]}"
    ):
        list(adapt(kind, metadata, labels))


def test_a_set_without_views_needs_labels(tmp_path: Path) -> None:
    """An unreliable header is not taken for a label."""
    with pytest.raises(ManifestError, match="publishes no views"):
        list(adapt("openi-png", table(tmp_path, OPENI)))


@pytest.mark.parametrize(
    ("term", "view"),
    [
        ("PA", "frontal"), ("AP", "frontal"), ("ap supine", "frontal"), ("AP erect", "frontal"),
        ("AP_horizontal", "frontal"), ("LLD", "frontal"), (" RLD ", "frontal"), ("L", "lateral"),
        ("LL", "lateral"), ("RL", "lateral"), ("LATERAL", "lateral"), ("Lateral", "lateral"),
        ("LAO", None), ("RLO", None), ("Axial", None), ("COSTAL", None), ("", None), ("LPA", None),
    ],
)  # fmt: skip
def test_a_word_for_a_view_is_understood_or_left(term: str, view: str | None) -> None:
    """Obliques and planes of CT are neither view; nothing is taken for the next best."""
    assert view_of(term) == view


def test_folders_become_rows(tmp_path: Path) -> None:
    """The first folder is the view; the patient is the name, or what a pattern finds."""
    for name in (
        "frontal/p7-a.png",
        "lateral/deep/p7-b.png",
        "other/p8.png",
        "frontal/x.png",
        "not_chest/h.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    plain = {item.file: item for item in adapt_folder(tmp_path, "ward")}
    assert plain["frontal/p7-a.png"] == Row("frontal/p7-a.png", "frontal", "ward-p7-a", "ward")
    assert plain["other/p8.png"] == (
        "other/p8.png",
        "lies in none of frontal, lateral and not_chest",
    )
    assert plain["not_chest/h.png"] == Row("not_chest/h.png", "not_chest", "ward-h", "ward")
    found = {item.file: item for item in adapt_folder(tmp_path, "ward", r"/(p\d+)-")}
    assert found["lateral/deep/p7-b.png"] == Row(
        "lateral/deep/p7-b.png", "lateral", "ward-p7", "ward"
    )
    assert found["frontal/x.png"] == ("frontal/x.png", "no patient in its name")
    with pytest.raises(ManifestError, match="is no folder"):
        list(adapt_folder(tmp_path / "none", "ward"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A manifest keeps every field of its rows, and counts what it leaves out."""
    rows = [
        Row("a, b.png", "frontal", "p1", "x", True, "CC BY", "r", 2, "train", "LL", "AP", "no"),
        Row("c.png", "lateral", "p2", "y", line=3, part="test"),
    ]
    exclusions = [Exclusion("d.png", "view is 'LAO'"), Exclusion("e.png", "view is 'LAO'")]
    out = tmp_path / "study.csv"
    assert write_manifest(rows, exclusions, out) == {"view is 'LAO'": 2}
    assert read_manifest(out) == rows
    assert (tmp_path / "study-exclusions.csv").read_text().splitlines() == [
        "file,reason",
        "d.png,view is 'LAO'",
        "e.png,view is 'LAO'",
    ]


def test_the_command_joins_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each under its own folder; without --append a manifest is made anew."""
    out, nih = tmp_path / "all.csv", table(tmp_path, NIH, "nih.csv.gz")
    further = ("covid-chestxray", table(tmp_path, COVID), "--append", "--source", "covid")
    run("nih", nih, "--out", out, "--prefix", "old")
    run("nih", nih, "--out", out, "--prefix", "nih")
    run(*further, "--out", out)
    rows = read_manifest(out)
    assert [row.file for row in rows][1:3] == ["nih/images/00000002_000.png", "images/a.jpeg"]
    assert [row.source for row in rows] == ["nih-chestxray14"] * 2 + ["covid"] * 2
    assert "1 excluded: modality is 'CT'" in capsys.readouterr().out
    (tmp_path / "other.csv").write_text("file,view\n")
    with pytest.raises(ManifestError, match="has other columns"):
        run(*further, "--out", tmp_path / "other.csv")


def test_the_command_takes_a_folder(tmp_path: Path) -> None:
    """The folder's name is the source where none is given."""
    for view in ("frontal", "lateral"):
        (tmp_path / "ward" / view).mkdir(parents=True)
        (tmp_path / "ward" / view / "1.png").touch()
    run("folder", tmp_path / "ward", "--out", tmp_path / "manifest.csv")
    assert {row.patient_id for row in read_manifest(tmp_path / "manifest.csv")} == {"ward-1"}
