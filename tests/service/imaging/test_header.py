from __future__ import annotations

import pytest
from pydicom.sr import codedict
from pydicom.sr._snomed_dict import mapping

from service.imaging import ViewHeader
from service.imaging.header import FRONTAL_CODES, LATERAL_CODES


@pytest.mark.parametrize(
    ("term", "view"),
    [
        *((term, "frontal") for term in ("AP", "PA", "LLD", "RLD")),
        *((term, "lateral") for term in ("LL", "RL")),
        *((term, "frontal") for term in ("AP SUPINE", "CHEST PA")),
        *((term, "lateral") for term in ("LATERAL", "LAT", "XTABLE", "LEFT LATERAL")),
        *((term, None) for term in ("RLO", "LLO", "LATERAL DECUBITUS", "PA/LAT", "?", "", None)),
    ],
)
def test_a_view_position_claims_one_view_or_none(term, view):
    """The Standard's own terms, and words; obliques and inventions compare to nothing."""
    header = ViewHeader(term)
    assert header.view == view
    assert header.agrees("frontal") == (None if view is None else view == "frontal")


@pytest.mark.parametrize(
    ("orientation", "view"),
    [
        *((said, "frontal") for said in ("L\\F", "R\\F", "LH\\FR", "LPF\\FP", "F\\L", "R\\H")),
        *((said, "lateral") for said in ("A\\F", "P\\F", "PL\\F", "AFR\\FP", "H\\P")),
        *((said, None) for said in ("L\\P", "A\\R", "L\\R", "F\\H", "L\\L")),  # no such plane
        *((said, None) for said in ("L", "L\\", "\\F", "\\", "L\\F\\A", "", None)),
        *((said, None) for said in ("LR\\F", "LL\\F", "L\\FH")),  # contradict themselves
        *((said, None) for said in ("LE\\D", "RT\\V", "CR\\V", "LEFT\\FOOT", "?\\F")),
    ],
)
def test_a_patient_orientation_claims_the_plane_of_its_main_directions(orientation, view):
    """Turned or refined, it is still that plane; half of it, or nonsense, is none."""
    header = ViewHeader(None, orientation)
    assert header.view_by_orientation == view
    assert header.patient_orientation_agrees("lateral") == (view and view == "lateral")
    assert header.agrees("lateral") is header.view_code_agrees("lateral") is None


# Whose code in CID 4010 means which view, by pydicom's names
VIEWS = {
    **dict.fromkeys(("Frontal", "AnteroPosterior", "PosteroAnterior"), "frontal"),
    **dict.fromkeys(("LateralProjection", "LeftLateral", "RightLateral"), "lateral"),
}
DX_VIEW = codedict.Collection("CID4010")
CODES = [(getattr(DX_VIEW, name), VIEWS.get(name)) for name in DX_VIEW.dir()]


@pytest.mark.parametrize(("code", "view"), CODES, ids=[code.meaning for code, _ in CODES])
def test_a_view_code_claims_what_it_means(code, view):
    """As SNOMED CT and as the retired codes, under each of their names; most of them are silent."""
    said = [f"SCT:{code.value}"]
    if old := mapping["SCT"].get(code.value):
        said += [f"{scheme}:{old}" for scheme in ("SRT", "SNM3", "99SDM")]
    for each in said:
        header = ViewHeader("LL", "A\\F", each)
        assert header.view_by_code == view
        assert header.view_code_agrees("frontal") == (view and view == "frontal")


def test_there_is_no_view_code_beyond_those_of_the_dictionary():
    """But one, which was Postero-anterior's before pydicom's mapping begins."""
    known = {code.value for code, view in CODES if view}
    assert known == FRONTAL_CODES["SCT"] | LATERAL_CODES["SCT"]
    old = {mapping["SCT"][value] for value in known} | {"R-10214"}
    assert old == FRONTAL_CODES["SRT"] | LATERAL_CODES["SRT"]
    assert "R-10214" not in mapping["SRT"]
    assert ViewHeader(None, None, "SNM3:R-10214").view_by_code == "frontal"


@pytest.mark.parametrize("code", [None, "", ":", "399033003", "DCM:399033003", "SCT:", "99LAB:PA"])
def test_a_view_code_of_another_scheme_is_silent(code):
    """A code means nothing without its scheme."""
    assert ViewHeader(None, None, code).view_by_code is None


@pytest.mark.parametrize(
    ("said", "claimed"),
    [
        *((said, True) for said in ("CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "NECKCHEST")),
        *((said, True) for said in ("THORAX", "TORAX", "TÓRAX", "LUNG", "MEDIASTINUM", "HEART")),
        *((said, True) for said in ("CHEST PA", "AP PORT CHEST", "CHEST_TO_PELVIS", "CHEST/ABD")),
        *((said, False) for said in ("HAND", "KNEES", "PELVIS", "ABDOMEN", "SKULL", "BREAST")),
        *((said, False) for said in ("L-SPINE", "CSPINE", "LUMBAR SPINE", "LEFT HAND", "FOOT_R")),
        *((said, None) for said in ("RIB", "STERNUM", "TSPINE", "T SPINE", "THORACIC SPINE")),
        *((said, None) for said in ("WHOLEBODY", "UNKNOWN", "ZEBRA", "?", "", None)),
        *((said, True) for said in ("CHEST2VIEWS", "CHEST1V", "THORAXABD", "NECKCHESTABDPELV")),
        *((said, True) for said in ("CHESTPA", "CHESTPALAT", "PORTCHEST", "XRCHEST", "LUNGS")),
        *((said, True) for said in ("CHESTXRAY", "CXR", "CHESTTOPELVIS", "THORAXORGANE", "LUNGE")),
        *((said, True) for said in ("CHEST SHOULDER", "RIBS CHEST", "PULMÓN", "TÓRAX PA")),
        *((said, None) for said in ("ORCHESTRA", "CHESTER", "MANCHESTER", "CHESTNUT", "PLUNGER")),
        *((said, None) for said in ("HEARTBURN", "SWEETHEART", "ROCHESTER GENERAL")),
        *((said, None) for said in ("NO CHEST", "NOT CHEST", "NOT HAND", "NON-CHEST", "NO HAND")),
        *((said, None) for said in ("CHEST PHANTOM", "PHANTOM HAND", "CHESTPHANTOM", "NOCHEST")),
        *((said, None) for said in ("SHOULDER", "SHOULDERS", "LEFT SHOULDER", "CLAVICLE")),
        *((said, None) for said in ("SCAPULA", "ACJOINT", "AC JOINT", "HA ND", "CHE ST")),
        *(
            (said, None)
            for said in ("T/L SPINE", "THORACIC LUMBAR", "SHOULDER ARM", "RIBS ABDOMEN")
        ),
        *((said, False) for said in ("XR L SPINE 2V", "SI JOINT", "LARGE INTESTINE", "HAND2VIEWS")),
    ],
)
def test_a_body_part_claims_a_chest_or_another_part(said, claimed):
    """Regions with the chest are one; what shows much of the chest but is none claims nothing."""
    header = ViewHeader("PA", body_part_examined=said)
    assert header.body_part_agrees(True) is claimed
    assert header.body_part_agrees(False) is (None if claimed is None else not claimed)
    assert header.body_part_agrees(None) is None
