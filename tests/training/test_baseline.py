"""The baselines: they learn what they can see, and the header says what it says."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from images import dicom, png, radiograph
from sklearn.metrics import roc_auc_score

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from training.data.manifest import LabelledImages, Row
from training.evaluate.baseline import (
    POINTS,
    header_evaluation,
    headers_of,
    profile_pfi,
    profiles,
    regression_pfi,
)

SPEC = PreprocessSpec(size=64)
PICTURE = radiograph(64, 56)


def labelled(count, first=0):
    """Frontals are the synthetic thorax, laterals a half of it; one lateral for three frontals."""
    rows, tensors = [], []
    for number in range(first, first + count):
        picture = radiograph(96, 88, bits=8, seed=number).astype(np.uint8)
        view = "lateral" if number % 4 == 0 else "frontal"
        pixels = np.ascontiguousarray(picture[:, :44]) if view == "lateral" else picture
        rows.append(Row(f"{number}", view, f"p{number}", "a"))
        tensors.append(image_to_tensor(png(pixels), SPEC))
    return LabelledImages(tuple(rows), np.stack(tensors))


def test_profiles_tell_a_thorax_from_its_half():
    """The SVM is right about new pictures at PFI 0.5, though one view is rarer."""
    test = labelled(20, first=100)
    pfi = profile_pfi(labelled(40), test)
    assert pfi.dtype == np.float32
    np.testing.assert_array_equal(pfi >= 0.5, test.labels == 1)


def test_a_profile_svm_is_deterministic():
    """Equal images, equal PFIs."""
    train, test = labelled(16), labelled(4, first=50)
    np.testing.assert_array_equal(profile_pfi(train, test), profile_pfi(train, test))


def test_a_profile_svm_refuses_a_single_example():
    """One lateral cannot be both trained on and calibrated with."""
    with pytest.raises(ValueError, match="two images of each view"):
        profile_pfi(labelled(4), labelled(4))


def test_profiles_are_means_and_extents_of_the_body():
    """A bright rectangle: 1 where it is, as wide and as high as it is."""
    tensor = np.zeros((1, 1, 128, 128), np.uint8)
    tensor[0, 0, 32:96, 0:32] = 255
    (found,) = profiles(tensor)
    rows, columns = found[:POINTS], found[POINTS : 2 * POINTS]
    at = np.linspace(0, 127, POINTS).round()
    np.testing.assert_allclose(rows, np.where((at >= 32) & (at < 96), 32 / 128, 0))
    np.testing.assert_allclose(columns, np.where(at < 32, 64 / 128, 0))
    np.testing.assert_allclose(found[2 * POINTS :], (0.5, 0.25, 0.5))


@pytest.mark.parametrize("level", [0, 255])
def test_profiles_of_a_blank_picture_are_finite(level):
    """Black and white alike."""
    assert np.isfinite(profiles(np.full((2, 1, 64, 64), level, np.uint8))).all()


def test_regression_learns_from_features_that_tell():
    """Separable features are separated; the rare view counts as much as the other."""
    chooser = np.random.default_rng(0)
    labels = np.array([0] * 10 + [1] * 90)
    features = (chooser.normal(0, 1, (100, 8)) + 4 * labels[:, None]).astype(np.float32)
    pfi = regression_pfi(features[::2], labels[::2], features[1::2])
    assert roc_auc_score(labels[1::2], pfi) == 1
    assert (pfi.dtype, pfi.shape) == (np.float32, (50,))


FILES = {
    "pa.dcm": dicom(PICTURE, ViewPosition="PA"),
    "padded.dcm": dicom(PICTURE, ViewPosition="LL "),
    "none.dcm": dicom(PICTURE, ViewPosition=None),
    "empty.dcm": dicom(PICTURE, ViewPosition=""),
    "picture.png": png(PICTURE),
}


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_a_header_is_the_manifests_or_the_files(packed, tmp_path):
    """The manifest's word comes first; a DICOM file speaks for itself; the rest is silent."""
    if packed:
        images = tmp_path / "images.zip"
        with zipfile.ZipFile(images, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        images = tmp_path
        for name, data in FILES.items():
            (images / name).write_bytes(data)
    rows = [Row(name, "frontal", "p", "a") for name in FILES]
    rows += [Row(name, "frontal", "p", "a", header="AP ") for name in ("pa.dcm", "picture.png")]
    assert headers_of(rows, images) == ["PA", "LL", "", "", "", "AP", "AP"]


ROWS = [
    Row(f"{number}", view, f"p{number // 2}", "a")
    for number, view in enumerate(["frontal"] * 4 + ["lateral"] * 3)
]


def test_the_header_is_judged_where_there_is_one():
    """Right, wrong, silent and of neither view, counted by hand."""
    headers = ["PA", "LL", "", "RLO", "LL", "AP", ""]
    row = header_evaluation("header", ROWS, headers)
    assert row is not None
    assert (row.images, row.patients, row.auroc) == (5, 3, None)
    assert row.note == "View Position in 5 of 7 images; 1 of them of neither view, taken for wrong"
    counts = [(p.count, p.n) for p in (row.accuracy, row.sensitivity, row.specificity, row.review)]
    assert counts == [(2, 5), (1, 3), (1, 2), (0, 5)]


@pytest.mark.parametrize("term", ["oblique", "RLO", "LATERAL DECUBITUS"])
def test_a_term_of_neither_view_is_wrong_about_both(term):
    """Not right about a frontal, nor about a lateral."""
    row = header_evaluation("header", ROWS, [term] * len(ROWS))
    assert row is not None
    assert (row.accuracy.count, row.sensitivity.count, row.specificity.count) == (0, 0, 0)


def test_no_header_no_row():
    """Of PNG files alone, nothing is reported."""
    assert header_evaluation("header", ROWS, [""] * len(ROWS)) is None


def test_the_views_weigh_the_same():
    """Where nothing tells the views apart, PFI is about 0.5, though three in four are frontal."""
    train = labelled(40)
    blank = LabelledImages(train.rows, np.full_like(train.tensors, 90))
    features = np.ones((40, 3), np.float32)
    assert regression_pfi(features, train.labels, features) == pytest.approx(0.5, abs=0.01)
    assert profile_pfi(blank, blank) == pytest.approx(0.5, abs=0.05)
