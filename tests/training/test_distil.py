"""A student's life in miniature, and the laws of what it learns from."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from images import png, radiograph
from labelled import write_labelled
from PIL import Image
from resuming import assert_resumes_exactly

from model_store import Store
from service.inference import open_network
from training.__main__ import main
from training.augmentation.student import Variation
from training.data.manifest import ManifestError
from training.export.publish import export
from training.networks.googlenet import Logits, PfiNetwork
from training.networks.swift import SIDE, Swift
from training.train.distil import DistilSettings, make_student, transfer_set
from training.train.distillation_data import (
    NO_LABEL,
    ORIGINALS_SHARE,
    TransferBatches,
    TransferSet,
    distillation_loss,
    photographs,
)
from training.train.settings import rows_of

CPU = torch.device("cpu")
IMAGES, PHOTOGRAPHS = 48, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of both views, and a folder of photographs."""
    folder = tmp_path_factory.mktemp("data")
    images = []
    for number in range(20):
        picture = radiograph(280, 256, bits=8, seed=number).astype(np.uint8)
        for view, pixels in (("frontal", picture), ("lateral", picture[:, :128])):
            images.append((f"{view}-{number}", view, ("one", "two")[number % 2], pixels))
    write_labelled(folder, images)
    (folder / "photographs").mkdir()
    for number in range(PHOTOGRAPHS):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80), dtype=np.uint8)
        (folder / "photographs" / f"{number}.png").write_bytes(png(noise))
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path) -> Path:
    """A finished run of one step, from scratch."""
    run = data / "teacher"
    paths = ["--manifest", str(data / "manifest.csv"), "--images", str(data)]
    few = ["--steps", "1", "--batch", "2", "--check-every", "1", "--children", "1"]
    assert main(["fit", str(run), *paths, *few]) == 0
    return run


def options(data: Path, teacher: Path) -> list[str]:
    paths = ["--teacher", str(teacher), "--photographs", str(data / "photographs")]
    counts = ["--images", str(IMAGES), "--photograph-images", str(PHOTOGRAPHS)]
    steps = ["--steps", "3", "--batch", "8", "--check-every", "2"]
    return [*paths, *counts, *steps, "--children", "2"]


@pytest.fixture(scope="module")
def run(data: Path, teacher: Path) -> Path:
    """A finished student of three steps."""
    folder = data / "student"
    assert main(["distil", str(folder), *options(data, teacher)]) == 0
    return folder


def test_a_student_becomes_a_version(run: Path, data: Path, tmp_path: Path) -> None:
    """Tested on its teacher's patients, published with its own size, and served."""
    assert main(["test", str(run)]) == 0
    assert main(["test", str(run)]) == 1, "a second test would be a choice by the test set"
    probe = tmp_path / "probe.png"
    probe.write_bytes((data / "frontal-0.png").read_bytes())
    publish = ["publish", str(run), "--name", "small", "--version", "1.0.0", "--probe", str(probe)]
    told = ["--derived-from", "googlenet/1.0.0", "--store", str(tmp_path / "store"), "--force"]
    assert main([*publish, *told]) == 0
    version = Store(tmp_path / "store").load("small/1.0.0")
    assert version.card.preprocess.size == SIDE
    assert version.card.derived_from == "googlenet/1.0.0"
    assert version.card.architecture.startswith("Swift")
    names = [row.name for row in version.card.evaluations]
    assert "test, Figure 6 grid" in names
    assert not [name for name in names if "frozen" in name], "that row is of the teacher's size"
    open_network(version)


def test_a_student_of_one_source_is_tested_on_the_others(data: Path, tmp_path: Path) -> None:
    """Its teacher saw one source, so its test is every image of the other."""
    paths = ["--manifest", str(data / "manifest.csv"), "--images", str(data)]
    few = ["--steps", "1", "--batch", "2", "--check-every", "1", "--children", "1"]
    assert main(["cross-source", str(tmp_path), *paths, *few]) == 0
    folder = tmp_path / "student"
    assert main(["distil", str(folder), *options(data, tmp_path / "fit-on-one")]) == 0
    assert main(["test", str(folder)]) == 0
    rows = json.loads((folder / "test.json").read_text())["evaluations"]
    assert [(row["name"], row["images"]) for row in rows] == [("fit on one, test on two", 20)]


def test_a_finished_student_is_not_trained_again(run: Path, data: Path, teacher: Path) -> None:
    """The same command resumes at the end; another setting in the same folder is refused."""
    weights = (run / "best.pt").read_bytes()
    assert main(["distil", str(run), *options(data, teacher)]) == 0
    assert (run / "best.pt").read_bytes() == weights
    assert main(["distil", str(run), *options(data, teacher), "--seed", "9"]) == 1


def test_a_resumed_student_ends_where_an_unbroken_one_does(run: Path, tmp_path: Path) -> None:
    """Stopped after any step, the checkpoint goes on to the same weights."""
    settings = replace(DistilSettings.load(run), steps=3)
    taught = transfer_set(settings, run, CPU)
    assert_resumes_exactly(lambda: make_student(settings, taught, CPU), tmp_path / "checkpoint.pt")


def test_the_transfer_set(run: Path) -> None:
    """Radiographs with their views, also as they are, photographs without; made once."""
    made = TransferSet.load(run / "transfer.npz")
    shown = len(rows_of(DistilSettings.load(run).of_student, "train"))
    assert made.tensors.shape == (shown + IMAGES + PHOTOGRAPHS, 1, SIDE, SIDE)
    assert made.tensors.dtype == np.uint8
    assert (made.labels == NO_LABEL).sum() == PHOTOGRAPHS
    assert set(made.labels[: shown + IMAGES]) == {0, 1}
    assert made.weights[:shown].sum() == pytest.approx(ORIGINALS_SHARE * made.weights.sum())
    assert np.flatnonzero(made.whole).tolist() == list(range(shown))
    assert made.logits.shape == (len(made.labels), 2)
    assert np.isfinite(made.features).all()


def test_photographs_are_drawn_from_a_folder_or_a_zip(data: Path, tmp_path: Path) -> None:
    """As many as asked for, at the teacher's size; a folder without any is refused."""
    drawn = torch.cat(list(photographs(data / "photographs", 7, 64, seed=1)))
    assert drawn.shape == (7, 1, 64, 64)
    with pytest.raises(ManifestError, match="no photographs"):
        list(photographs(tmp_path, 7, 64, seed=1))


def test_photographs_teach_no_label() -> None:
    """The loss of a picture without a label depends on the teacher alone."""
    logits = Logits(torch.tensor([[1.0, -1.0]]), (torch.zeros(1, 4),))
    taught = torch.tensor([[0.5, 0.2]])
    hints = torch.zeros(1, 4)

    def loss(label: int) -> float:
        targets = torch.cat((torch.tensor([[float(label)]]), taught, hints), dim=1)
        return float(distillation_loss(logits, targets, 0.0))

    assert loss(NO_LABEL) < loss(0) < loss(1)
    same = Logits(taught, (hints,))
    exact = torch.cat((torch.tensor([[float(NO_LABEL)]]), taught, hints), dim=1)
    assert float(distillation_loss(same, exact, 0.0)) == pytest.approx(0, abs=1e-6)


def test_batches_follow_from_seed_and_step() -> None:
    """Equal seeds give equal batches, whatever came before."""
    random = np.random.default_rng(1)
    made = TransferSet(
        random.integers(0, 256, (20, 1, 32, 32), dtype=np.uint8),
        random.integers(-1, 2, 20),
        random.normal(size=(20, 2)).astype(np.float32),
        random.normal(size=(20, 8)).astype(np.float16),
        np.ones(20),
        np.arange(20) < 5,
    )
    first, second = (TransferBatches(made, batch=6, seed=3, device=CPU) for _ in range(2))
    first.batch(1)
    for one, other in zip(first.batch(7), second.batch(7), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(first.batch(7)[0], first.batch(8)[0])


def test_variants_keep_range_and_shape() -> None:
    """Grey values stay within 0..255, with photographs to blend in and without."""
    picture = torch.from_numpy(radiograph(64, 64, bits=8)[None, None].astype(np.uint8))
    for blended in (picture, picture[:0]):
        variation = Variation(torch.Generator().manual_seed(1), blended)
        varied = variation(picture.repeat(8, 1, 1, 1), torch.ones(8, dtype=torch.bool))
        assert varied.shape == (8, 1, 64, 64)
        assert float(varied.min()) >= 0
        assert float(varied.max()) <= 255
        assert not torch.equal(varied[0], varied[1])


def test_only_whole_radiographs_lose_a_half() -> None:
    """Of white pictures, some of those that are whole get a large part of one other grey."""
    variation = Variation(torch.Generator().manual_seed(1), torch.empty(0, 1, 32, 32))
    white, whole = torch.ones(200, 1, 32, 32), torch.arange(200) < 100
    hidden = (variation._hide(white, whole) != 1).flatten(1).float().mean(1)
    assert not hidden[~whole].any()
    cut = hidden[whole & (hidden > 0)]
    assert 20 < len(cut) < 60
    assert float(cut.min()) > 0.25
    assert float(cut.max()) < 0.6


def test_the_student_is_small_and_exports_as_it_is() -> None:
    """At most 200,000 parameters serve; ONNX Runtime answers as torch does, at any batch size."""
    torch.manual_seed(1)
    network = PfiNetwork(Swift()).eval()
    served = [value for name, value in network.named_parameters() if "hint" not in name]
    assert sum(value.numel() for value in served) <= 200_000
    session = onnxruntime.InferenceSession(export(network, SIDE))
    for batch in (1, 3):
        tensors = np.random.default_rng(batch).integers(0, 256, (batch, 1, SIDE, SIDE), np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(tensors)).numpy()
        found = session.run(None, {"tensors": tensors})[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pictures_of_any_mode_serve_as_photographs(tmp_path: Path) -> None:
    """Colour photographs become grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), (10, 200, 30)).save(buffer, "JPEG")
    (tmp_path / "colour.jpg").write_bytes(buffer.getvalue())
    (drawn,) = photographs(tmp_path, 5, 32, seed=1)
    assert drawn.shape == (1, 1, 32, 32)
