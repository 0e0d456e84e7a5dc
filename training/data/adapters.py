"""How public sets of chest radiographs publish their images' views, and what their words mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from model_store import View
from service.imaging.header import FRONTAL_TERMS, LATERAL_TERMS

Record = Mapping[str, str]

FRONTAL = FRONTAL_TERMS | {
    "F", "FRONTAL", "AP SUPINE", "APS", "AP HORIZONTAL", "AP ERECT", "AP SEMI ERECT", "AP LLD",
    "AP RLD", "PA LLD", "PA RLD",
}  # fmt: skip
LATERAL = LATERAL_TERMS | {"L", "LATERAL"}


class Said(NamedTuple):
    """What a set says of one image, in its own words."""

    file: str  # relative to the folder that the set unpacks to
    patient: str
    view: str
    header: str = ""  # DICOM's View Position, where it is published
    licence: str = ""  # where it is stated for each image
    unfit: str = ""  # why it is no radiograph of the chest at all


@dataclass(frozen=True)
class Layout:
    """How a set publishes its views."""

    source: str
    licence: str
    origin: str
    columns: tuple[str, ...]
    said: Callable[[Record], Said]
    has_views: bool = True  # False: labels must come from elsewhere


def _covid(record: Record) -> Said:
    modality = record["modality"]
    return Said(
        file=f"{record['folder']}/{record['filename']}",
        patient=record["patientid"],
        view=record["view"],
        licence=record["license"],
        unfit="" if modality == "X-ray" else f"modality is {modality!r}",
    )


def _nih(record: Record) -> Said:
    file = f"images/{record['Image Index']}"
    return Said(file, record["Patient ID"], record["View Position"])


def _chexpert(record: Record) -> Said:
    patient = re.search(r"patient\d+", record["Path"])
    return Said(record["Path"], patient.group() if patient else "", record["Frontal/Lateral"])


def _mimic(record: Record) -> Said:
    patient, view = record["subject_id"], record["ViewPosition"]
    folder = f"files/p{patient[:2]}/p{patient}/s{record['study_id']}"
    return Said(f"{folder}/{record['dicom_id']}.jpg", patient, view, header=view)


def _padchest(record: Record) -> Said:
    return Said(
        file=f"{record['ImageDir']}/{record['ImageID']}",
        patient=record["PatientID"],
        view=record["Projection"],
        header=record["ViewPosition_DICOM"],
    )


def image_key(name: str) -> str:
    """What a DICOM file, 1_IM-0001-3001.dcm, and its PNG, CXR1_1_IM-0001-3001, have in common."""
    found = re.search(r"\d+_IM-[\d-]+", name)
    return found.group() if found else name


def _openi_png(record: Record) -> Said:
    key = image_key(record["imageid"])
    return Said(f"{record['imageid']}.png", key.split("_")[0], "", header=record["View Position"])


def _openi_dicom(record: Record) -> Said:
    key = image_key(record["imageid"])
    patient = key.split("_")[0]
    return Said(f"{patient}/{key}.dcm", patient, "", header=record["View Position"])


_OPENI = ("openi", "CC BY-NC-ND 4.0", "https://openi.nlm.nih.gov", ("imageid", "View Position"))
LAYOUTS = {
    # nlmcxr_dicom_metadata.csv of torchxrayvision; Open-I itself publishes no table. The views are
    # in a table of labels: file_name and image_view (F or L), as CXR_View_Classification has it
    "openi-dicom": Layout(*_OPENI, _openi_dicom, has_views=False),
    "openi-png": Layout(*_OPENI, _openi_png, has_views=False),
    "covid-chestxray": Layout(
        "covid-chestxray",
        "not stated",
        "https://github.com/ieee8023/covid-chestxray-dataset",
        ("patientid", "view", "modality", "folder", "filename", "license"),
        _covid,
    ),
    # Frontal only: of use where another source has laterals
    "nih": Layout(
        "nih-chestxray14",
        "free to use, with acknowledgement of the NIH Clinical Center",
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
        ("Image Index", "Patient ID", "View Position"),
        _nih,
    ),
    "chexpert": Layout(
        "chexpert",
        "Stanford University Dataset Research Use Agreement",
        "https://stanfordmlgroup.github.io/competitions/chexpert/",
        ("Path", "Frontal/Lateral"),
        _chexpert,
    ),
    # Its views are the headers': they are not labels by a reader
    "mimic": Layout(
        "mimic-cxr-jpg",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "https://physionet.org/content/mimic-cxr-jpg/",
        ("dicom_id", "subject_id", "study_id", "ViewPosition"),
        _mimic,
    ),
    "padchest": Layout(
        "padchest",
        "PadChest Dataset Research Use Agreement",
        "https://bimcv.cipf.es/bimcv-projects/padchest/",
        ("ImageID", "ImageDir", "PatientID", "ViewPosition_DICOM", "Projection"),
        _padchest,
    ),
}


def view_of(term: str) -> View | None:
    """The view that a word of DICOM or of a public set means; None for obliques and others.

    References:
        DICOM PS3.3 C.8.1.1 and C.8.11.1, View Position; the sets' own descriptions.
    """
    plain = " ".join(term.upper().replace("_", " ").replace("-", " ").split())
    if plain in FRONTAL:
        return "frontal"
    return "lateral" if plain in LATERAL else None
