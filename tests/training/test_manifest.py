"""Labels, images, their problems, and the split."""

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
from training.data.manifest import (
    ManifestError,
    Row,
    labels_of,
    read_and_check,
    read_images,
    read_manifest,
)
from training.data.split import By, split

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
        Row("a.png", "frontal", "p1", "x", train_only=True, licence="CC BY", origin="r", line=2),
        Row("b.png", "lateral", "p2", "y", line=3),
    ]


def test_a_manifest_may_say_the_split_and_the_header(tmp_path: Path) -> None:
    """Both are taken as they stand; a spreadsheet's byte order mark is no part of a name."""
    text = "\ufefffile,view,patient_id,source,split,header_view_position\n"
    text += "a.png,frontal,p1,x,test,LL \nb.png,lateral,p2,x,train,\n"
    rows = read_manifest(manifest(tmp_path, text))
    assert [(row.part, row.header) for row in rows] == [("test", "LL "), ("train", "")]
    assert split(rows, seed=1) == ("test", "train")


SPLIT = "file,view,patient_id,source,pool,split\n"
ORIENTED = "file,view,patient_id,source,projection,upright\n"
BOTH = "y.png,frontal,q1,x,,train\nz.png,lateral,q2,x,,train\n"  # lines without a problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,view\n", "manifest.csv has no column patient_id, source"),
        ("", "manifest.csv has no column file, view"),
        ("file,view,view,patient_id,source\n", "manifest.csv has two columns view"),
        (HEADER + "a.png,PA,p1,x,any,,\n", "line 2: view is 'PA', not frontal or lateral"),
        (HEADER + "a.png,frontal,p,x,any,,\nb.png,lateral,,x,any,,\n", "line 3: patient_id"),
        (HEADER + "a.png\n", "line 2: view is ''"),
        (HEADER + ",frontal,p,x,any,,\n", "line 2: file is empty"),
        (HEADER + '"a\nb.png",frontal,p,x,,,\nc.png,L,p,x,,,\n', "line 4: view is 'L'"),
        (HEADER + "a.png,frontal,p1,x,any,,\n", "manifest.csv has no lateral image"),
        (HEADER + "a.png,lateral,p1,x,any,,\n", "manifest.csv has no frontal image"),
        (SPLIT + BOTH + "y.png,frontal,p,x,,train\n", "line 4: y.png is listed in line 2 already"),
        (SPLIT + BOTH + "a.png,frontal,p,x,,val\n", "line 4: split is 'val', not train"),
        (SPLIT + BOTH + "a.png,frontal,p,x,,\n", "line 4: split is empty, one of 1 such"),
        (ORIENTED + "a.png,frontal,p,x,AP supine,\n", "projection is 'AP supine', not PA, AP or"),
        (ORIENTED + "a.png,frontal,p,x,AP,No\n", "upright is 'No', not yes, no or empty"),
        (HEADER + "a.png,not_chest,p,x,any,,\n", "view is 'not_chest', not frontal or lateral"),
        (
            SPLIT + BOTH + "a.png,frontal,q2,x,,test\n",
            "line 4: patient q2 is in test here, and in train in line 3",
        ),
        (
            SPLIT + BOTH + "a.png,frontal,p,x,train,test\n",
            "line 4: pool is 'train', but split is 'test'",
        ),
    ],
)
def test_a_wrong_manifest_is_told_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    """Nothing is guessed: a header's PA is no view label."""
    with pytest.raises(ManifestError, match=message):
        read_manifest(manifest(tmp_path, text))


def test_a_manifest_for_more_heads_may_hold_other_images(tmp_path: Path) -> None:
    """Only where it is asked for; their views are no labels."""
    text = ORIENTED + "a.png,frontal,p,x,AP,no\nb.png,lateral,q,x,,\nh.png,not_chest,r,hands,,\n"
    rows = read_manifest(manifest(tmp_path, text), negatives=True)
    assert [(row.view, row.projection, row.is_upright) for row in rows] == [
        ("frontal", "AP", False),
        ("lateral", "", True),
        ("not_chest", "", True),
    ]
    assert labels_of(rows[:2]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="not_chest has no label of a view"):
        labels_of(rows)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Of lines, between lines and of images: one look shows all that must be mended."""
    picture = png(radiograph(64, 64))
    for name in ("a.png", "twin.png"):
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "bad.png").write_text("x")
    lines = ["a.png,frontal,p1,x", "twin.png,lateral,p2,x", "bad.png,lateral,p3,x"]
    lines += ["none.png,frontal,p4,x", "c.png,PA,p5,x", "c.png,lateral,,x"]
    path = manifest(tmp_path, "file,view,patient_id,source\n" + "\n".join(lines))
    with pytest.raises(ManifestError) as found:
        read_and_check(path, tmp_path, PreprocessSpec(size=64))
    problems = found.value.problems
    assert str(found.value).splitlines() == list(problems)
    assert problems[:3] == (
        "manifest.csv line 6: view is 'PA', not frontal or lateral",
        "manifest.csv line 7: patient_id is empty",
        "manifest.csv line 7: c.png is listed in line 6 already",
    )
    same = "is lateral, but the same image as a.png in line 2, which is frontal"
    assert problems[3] == f"manifest.csv line 3: twin.png {same}"
    assert problems[4].startswith("manifest.csv line 4: bad.png: ")
    assert problems[5:] == ("manifest.csv line 5: none.png is missing",)


def test_a_sound_manifest_passes(tmp_path: Path) -> None:
    """Checked or not, the rows are the same; one image twice under one label is no problem."""
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        (tmp_path / name).write_bytes(png(radiograph(64, 64, seed=seed)))
    lines = "a.png,frontal,p1,x\nb.png,frontal,p1,x\nc.png,lateral,p2,x\n"
    path = manifest(tmp_path, "file,view,patient_id,source\n" + lines)
    assert list(read_and_check(path, tmp_path, PreprocessSpec(size=64)).rows) == read_manifest(path)


def test_images_lie_in_a_folder_or_a_zip(tmp_path: Path) -> None:
    """Anything else is told together with the manifest's own problems."""
    path = manifest(tmp_path, HEADER + "a.png,PA,p1,x,any,,\n")
    with pytest.raises(ManifestError, match=r"(?s)'PA'.*neither a folder nor a zip"):
        read_and_check(path, path, PreprocessSpec())


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


def test_bad_and_missing_images_are_told_by_their_names(tmp_path: Path) -> None:
    """A run does not start on half its data."""
    (tmp_path / "bad.png").write_text("x")
    damaged = tmp_path / "images.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("bad.png", png(radiograph(64, 64)))
    content = bytearray(damaged.read_bytes())
    content[100] ^= 0xFF
    damaged.write_bytes(content)
    rows = [Row(name, "frontal", "p", "s") for name in ("bad.png", "none.png")]
    for images in (tmp_path, damaged):
        with pytest.raises(ManifestError) as found:
            read_images(rows, images, PreprocessSpec())
        assert found.value.problems[0].startswith("bad.png: ")
        assert found.value.problems[1] == "none.png is missing"


def test_equal_tensors_are_the_same_image(tmp_path: Path) -> None:
    """Stored once as 8 bits and once as 16, with two labels, one of them is wrong."""
    picture = radiograph(64, 64, bits=8)
    (tmp_path / "8.png").write_bytes(png(picture.astype(np.uint8)))
    (tmp_path / "16.png").write_bytes(png(picture * 257))
    rows = [Row("8.png", "frontal", "p", "s"), Row("16.png", "lateral", "p", "s")]
    with pytest.raises(ManifestError, match=r"16\.png is lateral, but the same image as 8\.png"):
        read_images(rows, tmp_path, PreprocessSpec(size=64))


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
    parts = split(rows, seed)
    of_patient = {row.patient_id: part for row, part in zip(rows, parts, strict=True)}
    assert parts == tuple(of_patient[row.patient_id] for row in rows)
    assert all(of_patient[row.patient_id] == "train" for row in rows if row.train_only)
    assert parts == split(rows[::-1], seed)[::-1]


@pytest.mark.parametrize("by", ["patient", "image"])
def test_each_stratum_is_split_as_the_whole(by: By) -> None:
    """Both views of every source are in all parts, 60 : 20 : 20 of their images."""
    strata = (("a", "frontal", 50), ("a", "lateral", 10), ("b", "frontal", 100))
    rows = [
        Row(f"{source}-{view}-{n}.png", view, f"{source}-{view}-{n}", source)
        for source, view, count in strata
        for n in range(count)
    ]
    parts = split(rows, 3, by)
    found = Counter((row.source, row.view, part) for row, part in zip(rows, parts, strict=True))
    for source, view, count in strata:
        assert found[source, view, "test"] == found[source, view, "validation"] == count // 5
    assert set(split(rows, 3, by, test=0)) == {"train", "validation"}


def test_a_split_by_image_parts_patients_as_the_paper_did() -> None:
    """Patients and train-only do not matter; its 1,882 images fall to its counts but for one."""
    rows = [Row(f"{n}.png", "frontal", f"p{n // 9}", "s", train_only=n < 99) for n in range(1882)]
    parts = split(rows, 1, "image")
    assert Counter(parts) == {"train": 1130, "validation": 376, "test": 376}
    assert set(parts[:99]) == {"train", "validation", "test"}
    assert parts == split(rows[::-1], 1, "image")[::-1]


def test_a_split_is_frozen() -> None:
    """Runs that were split in the past are split the same for ever."""
    rows = [
        Row(
            f"{n}.png",
            "lateral" if n % 3 == 0 else "frontal",
            f"p{n * n % 17}",
            "ab"[n % 17 % 5 == 0],
            train_only=n == 7,
        )
        for n in range(30)
    ]
    letters = {"train": "r", "validation": "a", "test": "e"}
    assert "".join(letters[part] for part in split(rows, 4)) == "rreearrraarrraeerrreearrraarrr"
