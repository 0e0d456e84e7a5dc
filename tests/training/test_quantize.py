"""A published model in other numbers: the same answers, and an honest card."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import DATA
from images import png, radiograph
from onnx import numpy_helper

from model_store import ModelVersion, PreprocessSpec, Store
from service.imaging import image_to_tensor
from service.inference import open_network
from training.__main__ import main
from training.augmentation.figure6 import FIGURE_6
from training.data.manifest import read_images
from training.evaluate.metrics import OperatingPoint
from training.evaluate.onnx_predictors import predictor
from training.export.quantize.convert import COPIES, calibration_images
from training.export.quantize.fp16 import scale_before_squaring, to_fp16
from training.export.quantize.graph import normalisations
from training.export.quantize.int8 import (
    AT_ONCE,
    pool_across_channels,
    rectify_before_joining,
    to_int8,
)
from training.export.test_report import TestReport
from training.networks.googlenet import GoogLeNet
from training.train.evaluation_rows import crossing_rows, fitted_plateau
from training.train.evaluation_rows import test_rows as held_out_rows
from training.train.fit import CUTOFF
from training.train.loop import BEST
from training.train.settings import COMMAND, FitSettings, rows_of

PATIENTS = 6  # of each view in each of two sources
HALF_LIMIT = 65504.0  # the largest number of half precision
RADIOGRAPHS = sorted([*DATA.glob("*.jpg"), *DATA.glob("*.dcm")])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FitSettings:
    """Of a run on two sources: 'frontals' are the synthetic thorax, 'laterals' a half of it."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for source in ("one", "two"):
        for number in range(PATIENTS):
            picture = radiograph(140, 128, bits=8, seed=number).astype(np.uint8)
            for view, pixels in (("frontal", picture), ("lateral", picture[:, :64])):
                name = f"{source}-{view}-{number}"
                (folder / f"{name}.png").write_bytes(png(np.ascontiguousarray(pixels)))
                rows.append((f"{name}.png", view, name, source))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "view", "patient_id", "source"), *rows])
    return FitSettings(manifest, folder, weights=None, children=1)


@pytest.fixture(scope="module")
def runs(settings: FitSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tested run of random weights, published as tiny/1.0.0, and one fitted on a source."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    network = GoogLeNet()
    for run, own in (
        (folder / "run", settings),
        (folder / "crossing" / "fit-on-one", replace(settings, sources=("one",), test_share=0.0)),
    ):
        own.save(run)
        torch.save(network.state_dict(), run / BEST)
        (run / COMMAND).write_text("by hand")
        (run / CUTOFF).write_text(fitted_plateau(brightness, own).model_dump_json())
        assert main(["test", str(run)]) == 0
    publish = ["publish", str(folder / "run"), "--name", "tiny", "--version", "1.0.0"]
    publish += [
        "--probe",
        str(DATA / "frontal-0003.jpg"),
        "--store",
        str(folder / "store"),
        "--force",
    ]
    assert main(publish) == 0
    return folder


def brightness(tensors: np.ndarray) -> np.ndarray:
    """A network of one idea: frontal is what is bright."""
    return (tensors.mean(axis=(1, 2, 3)) / 255).astype(np.float32)


def shown(spec: PreprocessSpec) -> np.ndarray:
    """(7, 1, S, S) uint8: the bundled radiographs."""
    return np.stack([image_to_tensor(path.read_bytes(), spec) for path in RADIOGRAPHS])


def derive(runs: Path, *more: str) -> list[str]:
    command = ["derive", "tiny/1.0.0", "--run", str(runs / "run"), "--form", "fp16"]
    return [*command, "--name", "tiny-fp16", "--store", str(runs / "store"), *more]


def test_the_graph_is_rewritten_to_an_equal_one(version: ModelVersion) -> None:
    """Before anything is rounded, the rewritten graph answers as the published one."""
    model = onnx.load_from_string(version.model)
    del model.graph.value_info[:]
    rectify_before_joining(model.graph)
    pool_across_channels(model.graph)
    onnx.checker.check_model(model, full_check=True)
    tensors = shown(version.card.preprocess)
    np.testing.assert_allclose(
        predictor(model.SerializeToString())(tensors), predictor(version.model)(tensors), atol=1e-5
    )


def test_integers_answer_as_floats_do(version: ModelVersion) -> None:
    """8 bits cost a little PFI on real radiographs, and a quarter of the bytes remains."""
    tensors = shown(version.card.preprocess)
    form = to_int8(version.model, np.concatenate((tensors, tensors[:, :, ::-1]))[: 3 * AT_ONCE])
    assert len(form) < len(version.model) / 3
    parent = predictor(version.model)(tensors)
    np.testing.assert_allclose(predictor(form)(tensors), parent, atol=0.02)
    weights = [
        numpy_helper.to_array(each)
        for each in onnx.load_from_string(form).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4
    ]
    assert len(weights) == 56  # all convolutions but the first
    # two products of an activation and a weight must fit into 16 bits, for want of VNNI
    assert max(int(np.abs(each.astype(int)).max()) for each in weights) * 255 * 2 < 2**15


def test_half_precision_answers_as_single_does(version: ModelVersion) -> None:
    """Half the bytes, and the same answers to three digits."""
    tensors = shown(version.card.preprocess)
    form = to_fp16(version.model)
    assert len(form) < len(version.model) * 0.51
    parent = predictor(version.model)(tensors)
    np.testing.assert_allclose(predictor(form)(tensors), parent, atol=2e-3)


def test_squares_are_kept_within_half_precision(version: ModelVersion) -> None:
    """On real radiographs the squares leave its range, unless they are scaled before."""
    tensors = shown(version.card.preprocess)
    model = onnx.load_from_string(version.model)
    squares = [each.square.output[0] for each in normalisations(model.graph)]
    assert largest(model, squares, tensors) > HALF_LIMIT
    del model.graph.value_info[:]
    scale_before_squaring(model.graph)
    assert largest(model, squares, tensors) < HALF_LIMIT / 100


def largest(model: onnx.ModelProto, names: list[str], tensors: np.ndarray) -> float:
    """Of the values of intermediate tensors."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    for name in names:
        opened.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(
        opened.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return max(float(each.max()) for each in session.run(names, {"tensors": tensors}))


def test_calibration_sees_training_images_and_their_copies(settings: FitSettings) -> None:
    """All training images of so small a run, then transformed copies; always the same."""
    images = calibration_images(settings)
    train = read_images(rows_of(settings, "train"), settings.images, settings.spec).tensors
    assert len(images) == len(train) * (1 + COPIES)
    assert len(images) % AT_ONCE == 0
    plain = images[: len(train)]
    assert sorted(map(bytes, plain)) == sorted(map(bytes, train))
    np.testing.assert_array_equal(images, calibration_images(settings))


def test_a_form_is_published_with_rows_of_its_own(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test, Figure 6 and crossings are those of the converted network, at its parent's cutoff."""
    command = derive(runs, "--version", "1.0.0", "--cross-source", str(runs / "crossing"))
    assert main([*command, "--limitation", "Random."]) == 0
    table = capsys.readouterr().out
    version = Store(runs / "store").load("tiny-fp16/1.0.0")
    card = version.card
    grid = [f"test, Figure 6: {name}" for name in FIGURE_6]
    expected = ["test", "test: one", "test: two", "test, Figure 6 grid", *grid]
    assert [row.name for row in card.evaluations] == [*expected, "fit on one, test on two"]
    assert all(f"| {row.name} |" in table for row in card.evaluations)
    assert card.evaluations[-1].images == 2 * PATIENTS
    assert card.derived_from == "tiny/1.0.0"
    assert card.publish_command.startswith("python -m training derive")
    parent = Store(runs / "store").load("tiny/1.0.0").card
    assert (card.threshold, card.plateau) == (parent.threshold, parent.plateau)
    assert card.review_band == parent.review_band
    assert "half precision" in card.architecture
    assert card.limitations[-2] == "Random."
    assert "review band are those of tiny/1.0.0" in card.limitations[-1]
    assert "PFIs differ from its own by" in card.limitations[-1]
    assert open_network(version).version is version  # it answers its probe
    assert main(command) == 1  # immutable


def test_a_form_needs_the_run_of_its_parent(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run has other patients in its test, so its rows would be worth nothing."""
    report = TestReport.load(runs / "run")
    other = report.plateau.model_copy(update={"images": report.plateau.images + 1})
    report.model_copy(update={"plateau": other}).save(tmp_path)
    command = derive(runs, "--version", "2.0.0")
    command[command.index(str(runs / "run"))] = str(tmp_path)
    assert main(command) == 1
    assert "was not published from" in capsys.readouterr().err


def test_a_form_needs_finished_crossings(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder is a mistyped one."""
    assert main(derive(runs, "--version", "3.0.0", "--cross-source", str(tmp_path))) == 1
    assert "holds no tested run" in capsys.readouterr().err


def test_any_network_is_assayed_at_its_own_size(runs: Path) -> None:
    """The same patients and rows at another input size, without torch."""
    settings = replace(FitSettings.load(runs / "run"), size=64)
    sizes = []

    def seen(tensors: np.ndarray) -> np.ndarray:
        sizes.append(tensors.shape[1:])
        return brightness(tensors)

    plateau = fitted_plateau(seen, settings)
    point = OperatingPoint(plateau.high, plateau)
    rows = held_out_rows(seen, settings, point)
    rows += crossing_rows(seen, replace(settings, sources=("two",)), point)
    assert set(sizes) == {(1, 64, 64)}
    assert [row.name for row in rows[:3]] == ["test", "test: one", "test: two"]
    assert rows[-1].name == "fit on two, test on one"
    assert rows[-1].images == 2 * PATIENTS
