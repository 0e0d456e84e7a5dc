"""The Python API in this process: `Classifier`, and tables of its results."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pydicom
import pytest
from conftest import DATA
from heads import marked, nan_where_dark, with_heads
from images import dicom, png, radiograph
from PIL import Image

import cxrview
from cxrview import Classifier, ImageError, PredictionError
from cxrview.results import COLUMNS
from model_store import Store
from service.uploads.upload import UploadError

FRONTAL = DATA / "frontal-0003.jpg"
LATERAL = DATA / "lateral-0013-header-says-pa.dcm"
MODEL = "swift/1.1.0"


@pytest.fixture(scope="module")
def classifier() -> Iterator[Classifier]:
    with Classifier(MODEL) as opened:
        yield opened


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_one_radiograph_has_one_answer(classifier: Classifier) -> None:
    """However it is given: a path, bytes, an array of any type, a data set."""
    expected = classifier.classify(FRONTAL)
    assert (expected.view, expected.model.name) == ("frontal", "swift")
    assert classifier.classify(str(FRONTAL)) == expected
    assert classifier.classify(FRONTAL.read_bytes()) == expected
    pixels = grey(FRONTAL)
    pfi = classifier.classify(png(pixels)).pfi
    dataset = pydicom.dcmread(io.BytesIO(dicom(pixels)))
    bare = pydicom.dcmread(io.BytesIO(dicom(pixels)))
    del bare.file_meta
    for source in (
        pixels,
        pixels.astype(np.uint16) * 257,
        pixels.astype(np.int64) - 1000,
        pixels.astype(">i4"),
        pixels.astype(np.float32) / 255,
        pixels.astype(np.float64) * 1e6,
        dataset,
        bare,
    ):
        assert classifier.classify(source).pfi == pytest.approx(pfi, abs=1e-3)
    inverted = classifier.classify(255 - pixels, photometric="MONOCHROME1")
    assert inverted.pfi == pytest.approx(pfi, abs=1e-3)


def test_a_header_is_compared(classifier: Classifier) -> None:
    """As in the API of the service."""
    found = classifier.classify(pydicom.dcmread(LATERAL))
    assert found.view == "lateral"
    assert found.header is not None
    assert found.header.agrees is False


@pytest.mark.parametrize(
    ("source", "error", "code"),
    [
        (np.zeros((64, 64, 3), np.uint8), ImageError, "unsupported_pixel_format"),
        (np.full((64, 64), np.nan), ImageError, "unsupported_pixel_format"),
        (np.zeros((64, 64), bool), ImageError, "unsupported_pixel_format"),
        (np.zeros((64, 64), complex), ImageError, "unsupported_pixel_format"),
        (np.zeros((64, 64)), ImageError, "blank_image"),
        (np.ones((8, 64)), ImageError, "image_too_small"),
        (b"", ImageError, "empty_image"),
        (b"no image", ImageError, "unrecognised_format"),
        ("nowhere.dcm", UploadError, "unreadable_file"),
    ],
)
def test_what_cannot_be_classified_is_named(
    classifier: Classifier, source: object, error: type[Exception], code: str
) -> None:
    """By the code that the service has for it."""
    with pytest.raises(error) as found:
        classifier.classify(source)
    assert found.value.code == code


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("BodyPartExamined", 5), ("PatientID", 7), ("Rows", "many"), ("PixelData", 3)],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_dataset_that_cannot_be_written_is_a_bad_image(
    classifier: Classifier, keyword: str, value: object, bare: bool
) -> None:
    """And no error of pydicom, whose text may quote a patient; one of many stops no other."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(grey(FRONTAL))))
    if bare:
        del dataset.file_meta
    setattr(dataset, keyword, value)
    with pytest.raises(ImageError, match="cannot be written as DICOM") as found:
        classifier.classify(dataset)
    assert found.value.code == "corrupt_image"
    codes = [each.error_code for each in classifier.classify_many([dataset, FRONTAL])]
    assert codes == ["corrupt_image", None]


def test_an_answer_of_the_network_that_is_no_probability_is_an_error(tmp_path: Path) -> None:
    """Of this image alone, as the service has it."""
    Store(tmp_path).add(with_heads(edit=nan_where_dark("pfi")))
    bad, good = marked(radiograph()), marked(radiograph(), "inverted")
    with Classifier("swift/2.0.0", model_store=tmp_path) as headed:
        with pytest.raises(PredictionError, match="pfi=nan"):
            headed.classify(bad)
        codes = [each.error_code for each in headed.classify_many([bad, good, bad, good])]
    assert codes == ["internal_error", None] * 2


@pytest.mark.parametrize("source", [None, 7, [[1, 2]], Image.new("L", (64, 64))])
def test_other_objects_are_a_type_error(classifier: Classifier, source: object) -> None:
    """It says what is expected."""
    with pytest.raises(TypeError, match="a path, bytes, a pydicom Dataset or an array"):
        classifier.classify(source)
    with pytest.raises(TypeError, match="several"):
        classifier.classify_many("one.dcm")


def test_many_are_answered_in_order(classifier: Classifier, tmp_path: Path) -> None:
    """Folders are gone through, and a bad one stops no other."""
    for number in range(40):
        shutil.copy(FRONTAL if number % 2 else LATERAL, tmp_path / f"{number:02}")
    (tmp_path / "07").write_text("no image")
    results = list(classifier.classify_many([tmp_path, radiograph(64, 64), "nowhere"]))
    assert [Path(each.name).name for each in results] == [
        *(f"{number:02}" for number in range(40)),
        *("1", "nowhere"),
    ]
    views = [each.classification.view if each.classification else None for each in results[:40]]
    expected = ["frontal" if number % 2 else "lateral" for number in range(40)]
    expected[7] = None
    assert views == expected
    assert results[7].error_code == "unrecognised_format"
    assert results[-1].error_code == "unreadable_file"


def test_results_make_a_table(classifier: Classifier, capfd: pytest.CaptureFixture[str]) -> None:
    """For pandas and Arrow, with the same columns and types; progress is on standard error."""
    sources = [FRONTAL, LATERAL, b"no image"]
    frame = classifier.classify_many(sources, progress=True).to_frame()
    assert "100%" in capfd.readouterr().err
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame.view.fillna("")) == ["frontal", "lateral", ""]
    assert list(frame.header_agrees.isna()) == [True, False, True]
    assert frame.error[2] == "unrecognised_format"
    table = classifier.classify_many(sources).to_arrow()
    assert table.column_names == list(COLUMNS)
    assert table.schema.field("pfi").type == pa.float64()
    assert table["view"].to_pylist() == ["frontal", "lateral", None]
    empty = classifier.classify_many([]).to_frame()
    assert list(empty.columns) == list(COLUMNS)


def test_it_ends_by_itself() -> None:
    """A script that forgets to close it, or a notebook, comes to its end."""
    program = (
        "from cxrview import Classifier; "
        f"print(Classifier('swift/1.1.0').classify('{FRONTAL}').view)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "frontal\n"
    assert run.stderr == ""


def test_the_package_names_what_it_has() -> None:
    """And loads neither a web framework nor torch."""
    assert all(hasattr(cxrview, name) for name in cxrview.__all__)
    others = ("fastapi", "torch", "pandas", "pyarrow")
    program = f"import sys, cxrview; print(*[m for m in {others} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "\n"


def test_what_heads_answer_is_in_the_tables(headed_store: Path) -> None:
    """As in the API: null, and not False, where a question does not apply."""
    sources = [marked(radiograph()), marked(radiograph(), "no_chest")]
    sources.append(dicom(marked(radiograph(), "turn_270", "mirrored"), BodyPartExamined="HAND"))
    with Classifier("swift/2.0.0", model_store=headed_store) as headed:
        frame = headed.classify_many(sources).to_frame()
        table = headed.classify_many(sources).to_arrow()
    assert list(frame.view) == ["frontal", "not_chest", "frontal"]
    assert list(frame.chest > frame.chest_threshold) == [True, False, True]
    assert list(frame.body_part_examined.fillna("")) == ["", "", "HAND"]
    rows = table.to_pylist()
    assert [row["rotation_degrees"] for row in rows] == [0, None, 270]
    assert [row["mirrored"] for row in rows] == [False, None, True]
    assert [row["inverted"] for row in rows] == [False, None, False]
    assert [row["body_part_agrees"] for row in rows] == [None, None, False]
    assert rows[2]["mirrored_probability"] > 0.9


def test_a_model_without_heads_leaves_their_columns_empty(classifier: Classifier) -> None:
    """Their types are the same, so that tables of both kinds of models fit together."""
    table = classifier.classify_many([FRONTAL]).to_arrow()
    (row,) = table.to_pylist()
    of_heads = ("chest", "chest_threshold", "rotation_degrees", "inverted", "mirrored")
    assert {row[name] for name in of_heads} == {None}
    assert table.schema.field("rotation_degrees").type == pa.int64()
