"""One radiograph in, one answer out."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from conftest import DATA
from images import dicom, png, radiograph

from model_store import ModelVersion

REAL = sorted(path for path in DATA.iterdir() if path.suffix in {".jpg", ".png", ".dcm"})
DISAGREES = DATA / "lateral-0013-header-says-pa.dcm"


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_radiographs_get_their_view(client: httpx2.Client, path: Path) -> None:
    """Each bundled radiograph is answered with the view in its name, not marked for review."""
    answer = client.post("/v1/classify", content=path.read_bytes()).raise_for_status().json()
    assert answer["view"] == path.name.split("-")[0]
    assert answer["review"] is False
    assert answer["warnings"] == []


def test_the_answer_is_the_documented_contract(
    client: httpx2.Client, version: ModelVersion
) -> None:
    """Exactly the promised keys, with the card's threshold and the model's identity."""
    answer = client.post("/v1/classify", content=DISAGREES.read_bytes()).json()
    assert 0 <= answer.pop("pfi") < version.card.threshold
    assert answer == {
        "view": "lateral",
        "threshold": version.card.threshold,
        "review": False,
        "header": {"view_position": "PA", "agrees": False},
        "sop_instance_uid": "2.25.223311957814902347786532490214438837651",
        "model": {
            "name": "googlenet",
            "version": "1.1.0",
            "sha256": version.card.model_sha256,
        },
        "warnings": [],
    }


def test_png_and_jpeg_have_no_header(client: httpx2.Client) -> None:
    """Without a DICOM header there is nothing to compare, which is not the same as disagreement."""
    answer = client.post("/v1/classify", content=(DATA / "lateral-0048.jpg").read_bytes()).json()
    assert answer["header"] is None
    assert answer["sop_instance_uid"] is None


@pytest.mark.parametrize(
    ("position", "agrees"),
    [("RLO", None), ("LATERAL DECUBITUS", None), ("PA/LAT", None), ("", None), (None, None)],
)
def test_terms_that_claim_neither_view_compare_to_nothing(
    client: httpx2.Client, position: str | None, agrees: bool | None
) -> None:
    """Obliques, unknown terms and silence give null, never a disagreement."""
    body = dicom(radiograph(), ViewPosition=position)
    header = client.post("/v1/classify", content=body).json()["header"]
    assert header == {"view_position": position or None, "agrees": agrees}


@pytest.mark.parametrize("position", ["LL", "LATERAL", "LAT", "XTABLE"])
def test_a_view_position_in_words_is_compared(client: httpx2.Client, position: str) -> None:
    """Whole archives write LATERAL there; a description has no say in the answer."""
    body = dicom(radiograph(), ViewPosition=position, SeriesDescription="CHEST PA")
    answer = client.post("/v1/classify", content=body).json()
    agrees = answer["view"] == "lateral"
    assert answer["header"] == {"view_position": position, "agrees": agrees}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/dicom",
        "image/png",
        "image/jpeg",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # curl's default
        "text/plain",
        "nonsense",
        "",
    ],
)
def test_the_content_type_is_not_trusted(client: httpx2.Client, content_type: str) -> None:
    """The same bytes get the same answer, whatever the client says they are."""
    body = DISAGREES.read_bytes()
    expected = client.post("/v1/classify", content=body).json()
    headers = {"content-type": content_type}
    assert client.post("/v1/classify", content=body, headers=headers).json() == expected


def test_a_form_is_answered_like_a_raw_body(client: httpx2.Client) -> None:
    """The field `file` of a multipart body, beside other fields, gives the raw body's answer."""
    body = DISAGREES.read_bytes()
    expected = client.post("/v1/classify", content=body).json()
    form = {"data": {"note": "hello"}, "files": {"file": ("x.txt", body, "text/plain")}}
    assert client.post("/v1/classify", **form).json() == expected


def test_what_was_odd_is_said(client: httpx2.Client) -> None:
    """A header that had to be ignored is a warning beside the answer."""
    body = dicom(radiograph(), RescaleSlope="0", RescaleIntercept="0")
    assert client.post("/v1/classify", content=body).json()["warnings"] == ["rescale_ignored"]


def test_the_same_picture_has_the_same_pfi(client: httpx2.Client) -> None:
    """PNG of 16 bits, PNG of 8 and DICOM differ by less than 0.01 in PFI."""
    picture = radiograph(bits=16)
    bodies = (png(picture), png((picture >> 8).astype("uint8")), dicom(picture))
    found = [client.post("/v1/classify", content=body).json()["pfi"] for body in bodies]
    assert max(found) - min(found) < 0.01
