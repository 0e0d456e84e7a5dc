"""One radiograph in, one answer out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx2
import numpy as np
import pytest
from conftest import DATA
from heads import marked
from images import dicom, png, radiograph
from PIL import Image

from model_store import AnsweredView, ModelVersion
from service.api.settings import Settings
from service.inference import Classification

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
    client: httpx2.Client, default: ModelVersion
) -> None:
    """Exactly the promised keys, with the card's thresholds and the model's identity."""
    card = default.card
    assert card.heads is not None
    assert card.heads.chest is not None
    answer = client.post("/v1/classify", content=DISAGREES.read_bytes()).json()
    assert 0 <= answer.pop("pfi") < card.threshold
    assert card.heads.chest.threshold <= answer.pop("chest") <= 1
    orientation = answer.pop("orientation")
    assert 0.5 < orientation.pop("rotation_probability") <= 1
    assert 0 <= orientation.pop("inverted_probability") < 0.5
    assert orientation == {  # a lateral has no side that could be the wrong one
        "rotation_degrees": 0,
        "inverted": False,
        "mirrored": None,
        "mirrored_probability": None,
    }
    assert answer == {
        "view": "lateral",
        "threshold": card.threshold,
        "chest_threshold": card.heads.chest.threshold,
        "review": False,
        "header": {
            "view_position": "PA",
            "agrees": False,
            "body_part_examined": "CHEST",
            "body_part_agrees": True,
        },
        "sop_instance_uid": "2.25.223311957814902347786532490214438837651",
        "model": {"name": card.name, "version": card.version, "sha256": card.model_sha256},
        "warnings": [],
    }


def test_png_and_jpeg_have_no_header(client: httpx2.Client) -> None:
    """Without a DICOM header there is nothing to compare, which is not the same as disagreement."""
    answer = client.post("/v1/classify", content=(DATA / "lateral-0048.jpg").read_bytes()).json()
    assert answer["header"] is None
    assert answer["sop_instance_uid"] is None


@pytest.mark.parametrize("said", ["1.2.3\n4", "<script>", "\x1b[31m1", "7" * 150, "ANON"])
def test_what_is_no_uid_is_null(client: httpx2.Client, said: str) -> None:
    """It is not repeated to the client, nor joined to another one."""
    response = client.post("/v1/classify", content=dicom(radiograph(), SOPInstanceUID=said))
    assert (response.status_code, response.json()["sop_instance_uid"]) == (200, None)


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
    assert (header["view_position"], header["agrees"]) == (position or None, agrees)


@pytest.mark.parametrize("position", ["LL", "LATERAL", "LAT", "XTABLE"])
def test_a_view_position_in_words_is_compared(client: httpx2.Client, position: str) -> None:
    """Whole archives write LATERAL there; a description has no say in the answer."""
    pixels = np.asarray(Image.open(DATA / "lateral-0010.jpg").convert("L"))
    body = dicom(pixels, ViewPosition=position, SeriesDescription="CHEST PA")
    header = client.post("/v1/classify", content=body).json()["header"]
    assert (header["view_position"], header["agrees"]) == (position, True)


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


@pytest.fixture(scope="module")
def headed(start, light: Settings, headed_store: Path) -> Iterator[httpx2.Client]:
    """A client of a service whose model has all heads."""
    settings = light.model_copy(update={"model_store": headed_store, "model": "swift/2.0.0"})
    with start(settings) as service, service.client() as client:
        yield client


def test_what_is_no_chest_radiograph_has_no_view(headed: httpx2.Client) -> None:
    """But its PFI, and what its header says of the body part is compared."""
    body = dicom(marked(radiograph(), "no_chest"), ViewPosition="PA", BodyPartExamined="CHEST")
    answer = headed.post("/v1/classify", content=body).raise_for_status().json()
    assert answer["view"] == "not_chest"
    assert answer["pfi"] > answer["threshold"]
    assert answer["chest"] < answer["chest_threshold"] == 0.5
    assert answer["orientation"] is None
    assert answer["header"] == {
        "view_position": "PA",
        "agrees": None,
        "body_part_examined": "CHEST",
        "body_part_agrees": False,
    }


def test_how_an_image_lies_is_answered(headed: httpx2.Client) -> None:
    """By each endpoint; the metrics count what was found."""
    body = png(marked(radiograph(), "turn_90", "mirrored"))
    answer = headed.post("/v1/classify", content=body).json()
    lies = answer["orientation"]
    assert (lies["rotation_degrees"], lies["inverted"], lies["mirrored"]) == (90, False, True)
    assert min(lies["rotation_probability"], lies["mirrored_probability"]) > 0.9
    assert lies["inverted_probability"] < 0.1
    batch = headed.post("/v1/classify/batch", files={"files": ("a", body)}).json()
    assert batch.pop("name") == "a"
    assert batch == answer
    text = headed.get("/metrics").text
    for finding in ("turn_90", "mirrored"):
        assert f'cxrview_orientation_total{{finding="{finding}"}} ' in text
    assert "cxrview_chest_ratio_count " in text


def test_the_card_names_its_heads(headed: httpx2.Client) -> None:
    """With the cutoff of each, and its results."""
    card = headed.get("/v1/model").json()
    assert card["card_version"] == 2
    assert card["heads"]["chest"]["threshold"] == 0.5
    assert card["heads"]["rotation"] is True
    assert [row["task"] for row in card["head_evaluations"]] == ["chest", "mirrored"]


def test_the_description_names_every_key(client: httpx2.Client) -> None:
    """All are always there, but the explanation; the example is an answer of a model with heads."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    asked_for = {"Classification": {"explanation"}}
    for name in ("Classification", "Header", "Orientation"):
        always = set(schemas[name]["properties"]) - asked_for.get(name, set())
        assert set(schemas[name]["required"]) == always
    described = schemas["Classification"]
    (example,) = described["examples"]
    assert Classification.model_validate(example).model_dump() == example
    assert example.keys() == described["properties"].keys() - {"explanation"}
    assert described["properties"]["view"]["enum"] == list(get_args(AnsweredView))
