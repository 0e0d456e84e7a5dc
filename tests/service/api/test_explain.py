"""What the network saw: `explain=true` of POST /v1/classify."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from conftest import DATA
from heads import marked
from images import dicom, jpeg, png, radiograph
from PIL import Image
from pydicom import uid

from model_store import ModelVersion, Store
from service.api.settings import Settings
from service.imaging import LONGEST_SIDE, image_to_tensor
from service.inference import Evidence, Explanation, open_network

PICTURE = radiograph(1400, 1120)
DISAGREES = DATA / "lateral-0013-header-says-pa.dcm"
KINDS = {
    "uncompressed": dicom(PICTURE),
    "jpeg-2000": dicom(PICTURE, uid.JPEG2000Lossless),
    "jpeg": jpeg((PICTURE >> 4).astype(np.uint8)),
    "png": png(PICTURE),
}


def explained(client: httpx2.Client, data: bytes, query: str = "explain=true") -> dict[str, Any]:
    found = client.post(f"/v1/classify?{query}", content=data).raise_for_status().json()
    assert isinstance(found, dict)
    return found


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture(scope="module")
def headed(start, headed_store: Path) -> Iterator[httpx2.Client]:
    """A client of a service whose model has a map of evidence."""
    settings = Settings(model_store=headed_store, model="swift/2.0.0")
    with start(settings) as service, service.client() as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_the_same_and_says_what_the_network_saw(
    client: httpx2.Client, default: ModelVersion, kind: str
) -> None:
    """The thumbnail is the tensor; the frame is the whole image, small, in its aspect ratio."""
    plain = client.post("/v1/classify", content=KINDS[kind]).json()
    assert "explanation" not in plain
    found = explained(client, KINDS[kind])
    said = found.pop("explanation")
    assert found.pop("pfi") == pytest.approx(plain.pop("pfi"), abs=1e-5)
    assert found == plain
    tensor = image_to_tensor(KINDS[kind], default.card.preprocess)
    np.testing.assert_array_equal(np.asarray(opened(said["thumbnail"])), tensor[0])
    frame = said["frame"]
    assert (frame["rows"], frame["columns"]) == (512, 410)
    assert [frame[edge] for edge in ("top", "bottom", "left", "right")] == [0, 1, 0, 1]
    shown = opened(frame["jpeg"])
    assert shown.size == (frame["columns"], frame["rows"])
    side = default.card.preprocess.size
    small = np.asarray(shown.resize((side, side), Image.Resampling.BOX), np.float32)
    assert np.abs(small - tensor[0]).mean() < 3  # the same window, and bone is bright in both
    assert said["evidence"] is not None


def test_a_model_without_a_map_of_evidence_gives_null(start, light: Settings) -> None:
    """The thumbnail and the frame are there all the same."""
    with start(light) as service, service.client() as client:
        said = explained(client, KINDS["png"])["explanation"]
    assert said["evidence"] is None
    assert opened(said["thumbnail"]).size == (128, 128)
    assert said["frame"]["columns"] == 410


@pytest.mark.parametrize("query", ["", "explain=false", "lane=backfill&explain=false"])
def test_nothing_is_explained_unasked(client: httpx2.Client, query: str) -> None:
    """Then the key is absent."""
    assert "explanation" not in explained(client, KINDS["png"], query)


def test_what_is_no_yes_or_no_is_refused(client: httpx2.Client) -> None:
    """As any other query."""
    answer = client.post("/v1/classify?explain=perhaps", content=KINDS["png"])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_evidence_can_be_computed_from_its_grid(headed: httpx2.Client, headed_store: Path) -> None:
    """To half a level; its mean is the logit of the PFI."""
    data = DISAGREES.read_bytes()
    found = explained(headed, data)
    said = Explanation.model_validate(found["explanation"])
    assert said.evidence is not None
    network = open_network(Store(headed_store).load("swift/2.0.0"))
    expected = network.evidence(image_to_tensor(data, network.version.card.preprocess))
    step = (said.evidence.max - said.evidence.min) / 255
    np.testing.assert_allclose(said.evidence.logits(), expected, atol=step / 2 + 1e-4)
    logit = float(np.log(found["pfi"] / (1 - found["pfi"])))
    assert said.evidence.logits().mean() == pytest.approx(logit, abs=step)
    assert logit < 0  # a lateral


def test_an_even_map_is_no_division_by_zero() -> None:
    """All levels are 0 then."""
    found = Evidence.of(np.full((2, 3), -1.5, np.float32))
    assert (found.min, found.max) == (-1.5, -1.5)
    np.testing.assert_array_equal(found.logits(), np.full((2, 3), -1.5))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_frame_says_which_part_the_network_saw(client: httpx2.Client, kind: str) -> None:
    """A border is in the frame, and not in the thumbnail."""
    bordered = np.zeros((2800, 2240), np.uint8)
    bordered[700:2100, 560:1680] = PICTURE >> 4
    said = explained(client, png(bordered) if kind == "png" else jpeg(bordered))
    assert "border_ignored" in said["warnings"]
    frame = said["explanation"]["frame"]
    assert (frame["rows"], frame["columns"]) == (512, 410)
    edges = [frame[edge] for edge in ("top", "bottom", "left", "right")]
    assert edges == pytest.approx([0.25, 0.75, 0.25, 0.75], abs=0.02)


@pytest.mark.parametrize("shape", [(33, 4000), (4000, 33), (40, 40)], ids=str)
def test_a_frame_is_neither_enlarged_nor_larger_than_its_limit(
    client: httpx2.Client, shape: tuple[int, int]
) -> None:
    """Whatever its aspect ratio."""
    frame = explained(client, png(radiograph(*shape)))["explanation"]["frame"]
    sides = frame["rows"], frame["columns"]
    assert min(sides) >= 1
    assert max(sides) == min(max(shape), LONGEST_SIDE)


def test_polarity_is_that_of_the_thumbnail(client: httpx2.Client) -> None:
    """MONOCHROME1 is shown with bone bright."""
    top = int(PICTURE.max())
    pair = (dicom(PICTURE), dicom(top - PICTURE, PhotometricInterpretation="MONOCHROME1"))
    one, other = (explained(client, data)["explanation"]["frame"]["jpeg"] for data in pair)
    np.testing.assert_allclose(
        np.asarray(opened(one), np.int16), np.asarray(opened(other), np.int16), atol=6
    )


def test_heads_and_their_explanation_are_of_one_image(headed: httpx2.Client) -> None:
    """An image that is no chest radiograph is explained too."""
    found = explained(headed, png(marked(radiograph(), "no_chest")))
    assert found["view"] == "not_chest"
    assert found["explanation"]["evidence"]["rows"] >= 2
