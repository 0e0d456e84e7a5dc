"""Labels, images and the split by patient."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import png, radiograph

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from training.manifest import (
    ManifestError,
    Row,
    read_images,
    read_manifest,
    split_by_patient,
)

HEADER = "file,view,patient_id,source,pool,licence,source_repo\n"


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(text)
    return path


def test_a_manifest_is_read(tmp_path: Path) -> None:
    """The named columns, and what the optional ones mean."""
    path = manifest(
        tmp_path, HEADER + "a.png,frontal,p1,x,train,CC BY,r\nb.png,lateral,p2,y,any,,\n"
    )
    assert read_manifest(path) == [
        Row("a.png", "frontal", "p1", "x", train_only=True, licence="CC BY", origin="r"),
        Row("b.png", "lateral", "p2", "y"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,view\n", "no column patient_id, source"),
        ("", "no column file, view"),
        (HEADER + "a.png,PA,p1,x,any,,\n", "line 2: view is 'PA'"),
        (HEADER + "a.png,frontal,p,x,any,,\nb.png,lateral,,x,any,,\n", "line 3: patient_id"),
    ],
)
def test_a_wrong_manifest_is_told_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    """Nothing is guessed: a header's PA is no view label."""
    with pytest.raises(ManifestError, match=message):
        read_manifest(manifest(tmp_path, text))


@pytest.mark.parametrize("zipped", [False, True])
def test_images_are_read_as_the_service_reads_them(tmp_path: Path, zipped: bool) -> None:
    """From a folder or a zip, through `image_to_tensor`, in the manifest's order."""
    files = {f"{n}.png": png(radiograph(seed=n)) for n in range(5)}
    if zipped:
        images = tmp_path / "images.zip"
        with zipfile.ZipFile(images, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        images = tmp_path
        for name, data in files.items():
            (images / name).write_bytes(data)
    rows = [Row(name, "frontal" if n else "lateral", "p", "s") for n, name in enumerate(files)]
    read = read_images(rows, images, PreprocessSpec(size=64))
    expected = [image_to_tensor(data, PreprocessSpec(size=64)) for data in files.values()]
    np.testing.assert_array_equal(read.tensors, np.stack(expected))
    assert read.labels.tolist() == [0, 1, 1, 1, 1]


def test_a_bad_or_missing_image_is_told_by_its_name(tmp_path: Path) -> None:
    """A run does not start on half its data."""
    (tmp_path / "bad.png").write_text("x")
    for name in ("bad.png", "none.png"):
        with pytest.raises(ManifestError, match=name):
            read_images([Row(name, "frontal", "p", "s")], tmp_path, PreprocessSpec())


row = st.builds(
    Row,
    file=st.just("f"),
    view=st.sampled_from(["frontal", "lateral"]),
    patient_id=st.integers(0, 60).map(str),
    source=st.sampled_from(["a", "b", "c"]),
    train_only=st.integers(0, 9).map(lambda n: n == 0),
)


@given(st.lists(row, max_size=150), st.integers(0, 5))
def test_no_patient_is_in_two_parts(rows: list[Row], seed: int) -> None:
    """Every patient has one part; who has a train-only image trains; the same seed repeats it."""
    parts = split_by_patient(rows, seed)
    assert parts.keys() == {row.patient_id for row in rows}
    assert all(parts[row.patient_id] == "train" for row in rows if row.train_only)
    assert parts == split_by_patient(list(reversed(rows)), seed)


def test_each_stratum_is_split_as_the_whole() -> None:
    """Both views of every source are in all parts, 60 : 20 : 20 of their images."""
    strata = (("a", "frontal", 50), ("a", "lateral", 10), ("b", "frontal", 100))
    rows = [
        Row("f", view, f"{source}-{view}-{n}", source)
        for source, view, count in strata
        for n in range(count)
    ]
    parts = split_by_patient(rows, seed=3)
    found = Counter((row.source, row.view, parts[row.patient_id]) for row in rows)
    for source, view, count in strata:
        assert found[source, view, "test"] == found[source, view, "validation"] == count // 5
    assert set(split_by_patient(rows, 3, test_share=0).values()) == {"train", "validation"}
