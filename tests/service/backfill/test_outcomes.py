from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from conftest import DATA, ROOT
from images import dicom, jpeg, png, radiograph
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from model_store import (
    HeadCutoff,
    Heads,
    Interval,
    ModelVersion,
    Plateau,
    Prediction,
    PreprocessSpec,
    Store,
)
from service.api.admission import QueueFullError
from service.api.problems import CODES, KINDS
from service.backfill.results.outcomes import ROW_CODES, SKIPPED, row_of, row_of_error
from service.backfill.results.rows import ItemError, Names, Row, SourceError
from service.imaging import ImageError, read_radiograph
from service.inference import BatcherClosedError, open_network
from service.uploads.upload import UploadError

SPEC = PreprocessSpec()
PIXELS = radiograph(64, 64)
GREY = (PIXELS >> 4).astype(np.uint8)
HASH = "0a" * 32
SWIFT = "swift/1.0.0"
FRONTAL = Prediction(0.99)


@pytest.fixture(scope="module")
def swift() -> ModelVersion:
    return Store().load(SWIFT)


def coded(value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, "SCT"
    return Sequence([item])


def row(data: bytes, version: ModelVersion, said: Prediction = FRONTAL, **more: Any) -> Row:
    return row_of(
        "a/b.dcm", read_radiograph(data, SPEC), said, version.card, size=len(data), **more
    )


def test_a_real_radiograph_has_one_row(swift):
    """Answered by the model: a lateral whose View Position says PA."""
    data = (DATA / "lateral-0013-header-says-pa.dcm").read_bytes()
    image = read_radiograph(data, swift.card.preprocess)
    (prediction,) = open_network(swift).run(image.tensor[None])
    found = row_of(
        "0013.dcm", image, prediction, swift.card, size=len(data), seconds=0.5, attempts=2
    )
    assert found == Row(
        locator="0013.dcm",
        outcome="done",
        key=image.sop_instance_uid,
        sop_instance_uid=image.sop_instance_uid,
        study_instance_uid=image.origin.study_instance_uid,
        series_instance_uid=image.origin.series_instance_uid,
        modality=image.origin.modality,
        station=image.origin.station,
        month=image.origin.month,
        format="dicom",
        transfer_syntax=image.transfer_syntax,
        input="stored",
        view="lateral",
        pfi=prediction.pfi,
        threshold=swift.card.threshold,
        review=False,
        view_position="PA",
        view_position_agrees=False,
        body_part_examined="CHEST",
        bytes=len(data),
        seconds=0.5,
        attempts=2,
        model=SWIFT,
        model_sha256=swift.card.model_sha256,
    )


def test_a_row_holds_all_that_the_header_says(swift):
    """Four claims of the view, each compared by itself; of free text, the claim alone."""
    data = dicom(
        PIXELS,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        Modality="DX",
        StationName="InFlightLimiter 1",
        AcquisitionDate="20190228",
        ViewPosition="PA",
        PatientOrientation=["A", "F"],
        ViewCodeSequence=coded("399182000"),
        SeriesDescription="Zebra^Anna CHEST LAT",
        RescaleSlope="0",
        RescaleIntercept="0",
    )
    found = row(data, swift)
    assert found.study_instance_uid == "1.2.3"
    assert found.series_instance_uid == "1.2.3.4"
    assert (found.modality, found.station, found.month) == ("DX", "InFlightLimiter 1", "2019-02")
    assert (found.view_position, found.view_position_agrees) == ("PA", True)
    assert (found.patient_orientation, found.patient_orientation_agrees) == ("A\\F", False)
    assert (found.view_code, found.view_code_agrees) == ("SCT:399182000", None)
    assert (found.described_view, found.claimed_by) == ("lateral", "SeriesDescription")
    assert found.described_view_agrees is False
    assert "zebra" not in repr(found).lower()
    assert found.warnings == "rescale_ignored"
    assert row(data, swift, Prediction(0.01)).patient_orientation_agrees is True


def cutoff(threshold: float) -> HeadCutoff:
    return HeadCutoff(
        threshold=threshold,
        threshold_rule="middle",
        plateau=Plateau(low=0.1, high=0.9, youden_j=1, measured_on="test", images=10),
        review_band=Interval(low=threshold, high=threshold),
    )


@pytest.fixture(scope="module")
def headed(swift) -> ModelVersion:
    """A version whose card has all heads."""
    cutoffs = {"chest": cutoff(0.3), "inverted": cutoff(0.5), "mirrored": cutoff(0.5)}
    heads = {"card_version": 2, "heads": Heads(rotation=True, **cutoffs)}
    return replace(swift, card=swift.card.model_copy(update=heads))


OF_HEADS = (
    "chest", "chest_threshold", "rotation_degrees", "rotation_probability", "inverted",
    "inverted_probability", "mirrored", "mirrored_probability",
)  # fmt: skip
LYING = Prediction(0.99, 0.8, (0.1, 0.7, 0.1, 0.1), 0.9, 0.2)


def test_a_row_holds_what_all_heads_say(headed):
    """With the cutoff of `chest`; a header that names another body part disagrees."""
    data = dicom(PIXELS, BodyPartExamined="HAND")
    found = row(data, headed, LYING)
    assert [getattr(found, name) for name in OF_HEADS] == [0.8, 0.3, 90, 0.7, True, 0.9, False, 0.2]
    assert (found.view, found.pfi) == ("frontal", 0.99)
    assert (found.body_part_examined, found.body_part_agrees) == ("HAND", False)
    assert (found.view_position, found.view_position_agrees) == ("PA", True)


def test_what_is_no_chest_radiograph_has_no_view_to_compare(headed):
    """Whatever its header and its PFI say; the body part alone is compared."""
    said = {"ViewPosition": "LL", "PatientOrientation": ["A", "F"], "SeriesDescription": "LAT"}
    data = dicom(PIXELS, BodyPartExamined="CHEST", **said)
    found = row(data, headed, LYING._replace(chest=0.2))
    assert (found.outcome, found.code, found.view) == ("done", None, "not_chest")
    assert (found.chest, found.chest_threshold, found.pfi) == (0.2, 0.3, 0.99)
    assert {getattr(found, name) for name in OF_HEADS[2:]} == {None}
    assert (found.view_position, found.described_view) == ("LL", "lateral")
    claims = ("view_position", "patient_orientation", "view_code", "described_view")
    assert {getattr(found, f"{claim}_agrees") for claim in claims} == {None}
    assert found.body_part_agrees is False


def test_a_model_without_heads_says_nothing_of_the_body_part(swift):
    """The header's word is kept, and compared with nothing."""
    found = row(dicom(PIXELS, BodyPartExamined="HAND"), swift)
    assert {getattr(found, name) for name in OF_HEADS} == {None}
    assert (found.view, found.body_part_examined, found.body_part_agrees) == (
        "frontal", "HAND", None,
    )  # fmt: skip


@pytest.mark.parametrize("data", [png(GREY), jpeg(GREY)], ids=["png", "jpeg"])
def test_a_picture_has_a_row_without_header(data, swift):
    """Its key is the hash of its file."""
    found = row(data, swift, sha256=HASH)
    assert found.key == f"sha256:{HASH}"
    header = ("sop_instance_uid", "station", "month", "view_position", "view_position_agrees")
    assert not [name for name in header if getattr(found, name) is not None]
    assert found.format in {"png", "jpeg"}


@pytest.mark.parametrize("data", [png(GREY), jpeg(GREY)], ids=["png", "jpeg"])
def test_a_picture_that_an_archive_rendered_has_the_names_of_its_instance(data, swift):
    """So a copy is recognised; all else that a header says is not known."""
    found = row(data, swift, sha256=HASH, rendered=Names("1.2", "1.2.3", "1.2.3.4"))
    assert (found.study_instance_uid, found.series_instance_uid) == ("1.2", "1.2.3")
    assert found.key == found.sop_instance_uid == "1.2.3.4"
    assert (found.input, found.transfer_syntax, found.modality) == ("rendered", None, None)
    assert row(data, swift, sha256=HASH).input == "stored"
    odd = row(data, swift, sha256=HASH, rendered=Names("0", "0", "0"))
    assert odd.key == f"sha256:{HASH}"


@pytest.mark.parametrize(
    ("said", "kept", "known"),
    [
        ("1.2.3", "1.2.3", "1.2.3"),
        ("ANONYMISED", None, None),
        ("0", None, None),
        ("", None, None),
        ("1." * 40 + "1", None, None),
        ("1.2\0.3", None, None),
        ("1.2.3\n4", None, None),
    ],
)
def test_what_is_no_uid_is_no_key(said, kept, known, swift):
    """A text that anonymisers give to all images would make duplicates of them."""
    image = replace(read_radiograph(dicom(PIXELS), SPEC), sop_instance_uid=said)
    found = row_of("x", image, Prediction(0.5), swift.card, size=1, sha256=HASH)
    assert found.sop_instance_uid == kept
    assert found.key == (known or f"sha256:{HASH}")


@pytest.mark.parametrize("position", ["A\0P", "AP " + "x" * 80])
def test_a_view_position_can_be_stored(position, swift):
    """What the answer of the service shows as it stands, a database may not take."""
    image = read_radiograph(dicom(PIXELS), SPEC)
    image = replace(image, header=replace(image.header, view_position=position))
    found = row_of("x", image, Prediction(0.5), swift.card, size=1).view_position
    assert found is None or (len(found) <= 64 and found.isprintable())


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.1])
@pytest.mark.parametrize("head", Prediction._fields)
def test_what_is_no_probability_is_no_outcome(head, wrong, headed):
    """A NaN is below every threshold, and would be called lateral, or no chest radiograph."""
    value = (0.5, 0.5, wrong, 0.0) if head == "rotation" else wrong
    with pytest.raises(ValueError, match="PFI"):
        row(dicom(PIXELS), headed, LYING._replace(**{head: value}))


def refused(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_radiograph(data, SPEC)
    return caught.value


COLOURS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "outcome", "code"),
    [
        (b"%PDF-1.7", "skipped", "unrecognised_format"),
        (dicom(PIXELS, SOPClassUID=uid.CTImageStorage), "skipped", "unsupported_sop_class"),
        (dicom(PIXELS, NumberOfFrames=2), "skipped", "multi_frame_image"),
        (png(COLOURS), "skipped", "colour_image"),
        (png(GREY[:20, :20]), "skipped", "image_too_small"),
        (png(GREY * 0), "skipped", "blank_image"),
        (b"", "failed", "empty_image"),
        (dicom(PIXELS)[:-99], "failed", "corrupt_image"),
        (dicom(PIXELS, PixelData=None), "failed", "no_pixel_data"),
        (dicom(PIXELS, Rows=65535, Columns=65535), "failed", "image_too_large"),
        (dicom(PIXELS, TransferSyntaxUID="1.2.999"), "failed", "unsupported_transfer_syntax"),
        (dicom(PIXELS, BitsAllocated=24), "failed", "unsupported_pixel_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_is_skipped_or_failed(data, outcome, code):
    """Skipped for good where no radiograph can be; failed where there may be one."""
    found = row_of_error("a/b", refused(data), size=len(data), seconds=0.1, attempts=3)
    expected = Row("a/b", outcome, code, bytes=len(data), seconds=0.1, attempts=3)
    assert asdict(found) == asdict(expected)


def test_each_code_of_images_was_thought_of():
    """A new class of refusals must be put to one side or the other."""
    codes = {kind.code for cls, kind in KINDS.items() if issubclass(cls, ImageError)}
    assert set(CODES) >= SKIPPED
    assert codes - SKIPPED == {
        "corrupt_image",
        "decoder_failed",
        "empty_image",
        "image_too_large",
        "no_pixel_data",
        "unsupported_pixel_format",
        "unsupported_transfer_syntax",
    }


def test_the_certificate_knows_each_code_of_a_row():
    """Those of images, of files in archives and of sources, and those of the work itself."""
    files = (ImageError, UploadError)
    codes = {kind.code for cls, kind in KINDS.items() if issubclass(cls, files)}
    for path in (ROOT / "service" / "backfill").rglob("*.py"):
        codes |= set(re.findall(r'ItemError\(\s*"(\w+)"', path.read_text()))
    assert codes > {"not_found", "unreadable_file"}
    assert codes | {"internal_error", "duplicate", "crashed"} == ROW_CODES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ItemError("unreadable_file", "permission denied"), "unreadable_file"),
        (ItemError("entry_ratio", "a bomb"), "entry_ratio"),
        (ValueError("a defect of ours"), "internal_error"),
        (MemoryError(), "internal_error"),
    ],
    ids=str,
)
def test_what_cannot_be_had_has_failed(error, code):
    """It has the code of its source; an unforeseen error is a defect of ours and stops nothing."""
    assert row_of_error("x", error) == Row("x", "failed", code)


def test_what_says_nothing_of_an_image_is_no_outcome():
    """An archive that does not answer, a service that stops or is full: it is raised again."""
    for error in (
        SourceError("no route"),
        BatcherClosedError("stopping"),
        QueueFullError("full", 1),
    ):
        with pytest.raises(type(error)) as caught:
            row_of_error("x", error)
        assert caught.value is error
