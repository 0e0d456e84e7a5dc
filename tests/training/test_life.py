"""A model's whole life in miniature: fit, resume, test once, cross sources, publish, serve."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA
from images import dicom, png, radiograph
from resuming import assert_resumes_exactly

from model_store import PreprocessSpec, Store
from service.imaging import ImageError, image_to_tensor
from service.inference import open_network
from training.__main__ import main
from training.augmentation.figure6 import FIGURE_6, transform
from training.data.manifest import Row, read_images
from training.export.publish import INTENDED_USE, LIMITATIONS
from training.train.fit import make_trainer
from training.train.sampling import sampling_weights
from training.train.settings import FitSettings, rows_of

PATIENTS = 10  # of each view in each of two sources


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of pictures: 'frontals' are the synthetic thorax, 'laterals' a half of it."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for source in ("one", "two"):
        for number in range(PATIENTS):
            picture = radiograph(280, 256, bits=8, seed=number).astype(np.uint8)
            for view, pixels in (("frontal", picture), ("lateral", picture[:, :128])):
                name = f"{source}-{view}-{number}.png"
                (folder / name).write_bytes(png(np.ascontiguousarray(pixels)))
                rows.append((name, view, f"{source}-{view}-{number}", source, "CC0", "here"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source", "licence", "source_repo"))
        writer.writerows(rows)
    return folder


def options(data: Path) -> list[str]:
    paths = ["--manifest", str(data / "manifest.csv"), "--images", str(data)]
    return [*paths, "--steps", "2", "--batch", "2", "--check-every", "1", "--children", "1"]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps, from scratch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", str(folder), *options(data)]) == 0
    return folder


@pytest.fixture(scope="module")
def tested(run: Path) -> Path:
    """The same run, tested."""
    assert main(["test", str(run)]) == 0
    return run


def test_a_run_leaves_its_records(run: Path) -> None:
    """Settings, command, log, scalars, checkpoint, best weights and the whole plateau."""
    (scalars,) = run.glob("events.out.tfevents.*")
    assert {path.name for path in run.iterdir()} - {scalars.name} == {
        "settings.json",
        "command.txt",
        "log.csv",
        "checkpoint.pt",
        "best.pt",
        "cutoff.json",
    }
    assert (run / "command.txt").read_text().startswith(f"python -m training fit {run}")
    assert len((run / "log.csv").read_text().splitlines()) == 2
    plateau = json.loads((run / "cutoff.json").read_text())
    assert plateau["images"] == 2 * len(rows_of(FitSettings.load(run), "validation"))


def test_a_finished_run_is_not_trained_again(run: Path, data: Path) -> None:
    """The same command resumes at the end; another setting in the same folder is refused."""
    weights = (run / "best.pt").read_bytes()
    assert main(["fit", str(run), *options(data)]) == 0
    assert (run / "best.pt").read_bytes() == weights
    assert main(["fit", str(run), *options(data), "--seed", "9"]) == 1


def test_a_resumed_run_ends_where_an_unbroken_one_does(run: Path, tmp_path: Path) -> None:
    """Stopped after any step, the checkpoint goes on to the same weights."""
    settings = replace(FitSettings.load(run), steps=3)
    train = read_images(rows_of(settings, "train"), settings.images, settings.spec)
    device = torch.device("cpu")
    make = partial(make_trainer, settings, train, device)
    assert_resumes_exactly(make, tmp_path / "checkpoint.pt")


def test_a_loss_that_is_no_number_stops_the_run(run: Path) -> None:
    """Nonsense is not trained on."""
    settings = FitSettings.load(run)
    train = read_images(rows_of(settings, "train"), settings.images, settings.spec)
    trainer = make_trainer(settings, train, torch.device("cpu"))
    with torch.no_grad():
        trainer.network.fc.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss became nan"):
        trainer.train_step()


def test_a_run_is_tested_once(tested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second look at the test set is refused."""
    report = json.loads((tested / "test.json").read_text())
    names = [row["name"] for row in report["evaluations"]]
    grid = [f"test, Figure 6: {name}" for name in FIGURE_6]
    assert names == ["test", "test: one", "test: two", "test, Figure 6 grid", *grid]
    assert main(["test", str(tested)]) == 1
    assert "was tested already" in capsys.readouterr().err


def test_a_published_run_serves(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exported graph answers as torch did, under a card that says how it came to be."""
    command = ["publish", str(tested), "--name", "tiny", "--version", "0.0.1"]
    probe = DATA / "frontal-0003.jpg"
    command += ["--probe", str(probe), "--store", str(tmp_path), "--limitation", "Synthetic."]
    assert main(command) == 1
    assert "--force publishes it" in capsys.readouterr().err
    command += ["--force"]
    assert main(command) == 0
    version = Store(tmp_path).load("tiny/0.0.1")
    card = version.card
    assert card.parity_max_abs_difference <= 1e-4
    assert card.intended_use == INTENDED_USE
    assert card.limitations == (*LIMITATIONS, "Synthetic.")
    assert "not a medical device" in card.intended_use.lower()
    assert [(s.name, s.licence) for s in card.data] == [("one", "CC0"), ("two", "CC0")]
    assert sum(source.frontal + source.lateral for source in card.data) == 32
    assert card.training_command.startswith("python -m training fit")
    network = open_network(version)
    tensor = image_to_tensor(probe.read_bytes(), card.preprocess)
    assert network.pfi(tensor[np.newaxis])[0] == pytest.approx(card.probe_pfi, abs=1e-5)
    assert main(command) == 1  # immutable


def test_a_start_that_fails_leaves_the_folder_free(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command may have other settings; a run that has begun keeps its own."""
    wrong = ["fit", str(tmp_path / "run"), *options(data)]
    wrong[wrong.index("--manifest") + 1] = str(tmp_path / "nowhere.csv")
    assert main(wrong) == 1
    assert not list((tmp_path / "run").iterdir())
    assert main(["fit", str(tmp_path / "run"), *options(data)]) == 0
    assert main(wrong) == 1
    assert "other settings" in capsys.readouterr().err


def test_an_untested_run_is_not_published(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model without its results."""
    for name in ("settings.json", "command.txt"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    command = ["publish", str(tmp_path), "--name", "x", "--version", "1.0.0"]
    assert main([*command, "--probe", str(DATA / "frontal-0003.jpg")]) == 1
    assert "was not tested" in capsys.readouterr().err


def test_sources_are_crossed_both_ways(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fit on each, test on all of the other; done crossings are read, not made again."""
    command = ["cross-source", str(tmp_path / "cross"), *options(data)]
    assert main(command) == 0
    table = capsys.readouterr().out
    for pair in ("fit on one, test on two", "fit on two, test on one"):
        assert f"| {pair} | {2 * PATIENTS} |" in table
    assert main(command) == 0
    assert capsys.readouterr().out == table
    empty = tmp_path / "empty"
    empty.mkdir()
    tested = ["publish", str(tmp_path / "cross" / "fit-on-one"), "--name", "x"]
    tested += ["--version", "1.0.0", "--probe", str(DATA / "frontal-0003.jpg"), "--force"]
    (tmp_path / "cross" / "fit-on-one" / "command.txt").write_text("x")
    assert main([*tested, "--cross-source", str(empty)]) == 1
    assert "no finished cross-source test" in capsys.readouterr().err


def test_three_sources_make_six_crossings(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each source is fitted on once, and tested on every other."""
    lines = (data / "manifest.csv").read_text().splitlines()
    third = [line.replace("one", "three") for line in lines[1:] if ",one," in line]
    for name in (line.split(",")[0] for line in third):
        (data / name).write_bytes((data / name.replace("three", "one")).read_bytes())
    (tmp_path / "manifest.csv").write_text("\n".join([*lines, *third]))
    command = ["cross-source", str(tmp_path / "run"), *options(data)]
    command[command.index("--manifest") + 1] = str(tmp_path / "manifest.csv")
    assert main(command) == 0
    table = capsys.readouterr().out
    for one in ("one", "two", "three"):
        for other in {"one", "two", "three"} - {one}:
            assert table.count(f"| fit on {one}, test on {other} | {2 * PATIENTS} |") == 1


def test_crossing_needs_two_sources(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One source cannot be another's test."""
    lines = (data / "manifest.csv").read_text().splitlines()
    (tmp_path / "manifest.csv").write_text("\n".join(line for line in lines if "two" not in line))
    command = ["cross-source", str(tmp_path / "run"), *options(data)]
    command[command.index("--manifest") + 1] = str(tmp_path / "manifest.csv")
    assert main(command) == 1
    assert "two sources" in capsys.readouterr().err


def rows(*counts: tuple[str, str, int]) -> tuple[Row, ...]:
    return tuple(
        Row("f", view, "p", source) for source, view, count in counts for _ in range(count)
    )


def test_views_are_balanced_within_each_source() -> None:
    """A mixed source gives each view the same weight; one-view sources share a fifth by root."""
    given = rows(
        ("a", "frontal", 90), ("a", "lateral", 10), ("b", "frontal", 1), ("b", "lateral", 4),
        ("c", "frontal", 100), ("d", "frontal", 400),
    )  # fmt: skip
    weights = sampling_weights(given)
    shares: dict[tuple[str, str], float] = {}
    for row, weight in zip(given, weights, strict=True):
        shares[row.source, row.view] = shares.get((row.source, row.view), 0) + weight
    assert weights.sum() == pytest.approx(1)
    for source in "ab":
        assert shares[source, "frontal"] == pytest.approx(0.2)
        assert shares[source, "lateral"] == pytest.approx(0.2)
    assert shares["c", "frontal"] == pytest.approx(0.2 / 3)
    assert shares["d", "frontal"] == pytest.approx(0.4 / 3)
    for only in (("b", "lateral", 3), ("a", "lateral", 1)):
        assert sampling_weights(rows(("a", "frontal", 3), only)).sum() == pytest.approx(1)


@pytest.mark.parametrize("name", FIGURE_6)
@pytest.mark.parametrize("depth", [8, 16])
def test_figure_6_changes_the_image_itself(name: str, depth: int) -> None:
    """Each transformation changes the tensor, at 8 and 16 bits, and leaves a readable file."""
    picture = radiograph(bits=depth)
    data = png(picture if depth == 16 else picture.astype(np.uint8))
    before = image_to_tensor(data, PreprocessSpec()).astype(int)
    after = image_to_tensor(transform(data, name), PreprocessSpec()).astype(int)
    changed = (np.abs(after - before) > 8).mean()
    assert changed > (0.01 if name == "text label" else 0.2)


def test_figure_6_takes_dicom() -> None:
    """Of DICOM, the service's own rendering is transformed; what no reader knows is told apart."""
    picture = radiograph()
    spec = PreprocessSpec()
    from_dicom = image_to_tensor(transform(dicom(picture), "top half hidden"), spec).astype(int)
    from_png = image_to_tensor(transform(png(picture), "top half hidden"), spec).astype(int)
    assert np.abs(from_dicom - from_png).mean() < 4
    with pytest.raises(ImageError):
        transform(b"DICM", "text label")
