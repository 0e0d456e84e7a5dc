"""The published study in miniature, from its TOML file to its report."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from conftest import DATA, ROOT, SHIPPED
from studies import SMOKE, build, changes

from model_store import Store
from service.inference import open_network
from training.__main__ import main
from training.augmentation.figure6 import FIGURE_6
from training.study.results import Results

KINDS = ("colour", "full-greyscale", "subset-greyscale")
METHODS = ("fc-originals", "fc-augmented", "all-augmented")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the finished run, measured against the shipped version."""
    own = tmp_path_factory.mktemp("study")
    build(own)
    assert main(command(own)) == 0
    return own


def command(folder: Path, *more: str) -> list[str]:
    given = [
        *changes(folder),
        "publish.when=always",
        f"publish.store={folder / 'store'}",
        f"publish.incumbent={SHIPPED}",
        f"publish.probe={DATA / 'frontal-0003.jpg'}",
        "publish.name=smoke",
        "publish.version=0.0.1",
    ]
    sets = [word for change in given for word in ("--set", change)]
    return ["reproduce", str(ROOT / SMOKE), "--out", str(folder / "run"), *sets, *more]


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return Results.load(folder / "run")


def test_all_nine_candidates_are_trained(results: Results) -> None:
    """Three pre-trainings by three methods, each judged on the same images and children."""
    names = [candidate.name for candidate in results.candidates]
    assert names == [f"{kind}, {method}" for kind in KINDS for method in METHODS]
    assert results.chosen in names
    assert {candidate.accuracy.n for candidate in results.candidates} == {
        results.children * candidate.accuracy_originals.n for candidate in results.candidates
    }
    best = max(candidate.accuracy.value for candidate in results.candidates)
    chosen = next(each for each in results.candidates if each.name == results.chosen)
    assert chosen.accuracy.value == best


def test_photographs_count_for_pre_training(results: Results) -> None:
    """Grey photographs come on top of those that the colour weights have seen."""
    images = {each.pretraining: each.pretraining_images for each in results.candidates}
    assert images["colour"] == 1_281_167
    assert images["full-greyscale"] > images["subset-greyscale"] > images["colour"]


def test_the_flow_adds_up(results: Results) -> None:
    """Every image read is in exactly one part, and training sees 106 children of each."""
    steps = {step.name: step for step in results.flow}
    assert steps["read"].images == 96
    assert sum(steps[part].images for part in ("train", "validation", "test")) == 96
    assert steps["train with children"].images == 106 * steps["train"].images
    assert (steps["read"].frontal, steps["read"].lateral) == (48, 48)


def test_both_cutoffs_stand_on_every_test_row(results: Results) -> None:
    """As it is, by source, the Figure 6 grid and its rows, and across sources."""
    assert [each.rule for each in results.assessed] == ["middle", "high"]
    expected = ["test", "test: one", "test: two", "test, Figure 6 grid"]
    expected += [f"test, Figure 6: {name}" for name in FIGURE_6]
    expected += ["fit on one, test on two", "fit on two, test on one"]
    for each in results.assessed:
        assert [row.name for row in each.evaluations] == expected
    assert results.assessed[1].threshold == results.plateau.high


def test_every_question_of_leakage_has_its_rows(results: Results) -> None:
    """Split, cutoff, interval and source, for the candidate and for frozen features."""
    asked = {(row.question, row.model.split(",")[0]) for row in results.leakage}
    assert asked == {
        (question, model)
        for question in ("split", "cutoff", "interval", "source")
        for model in ("chosen candidate", "frozen features")
        if (question, model) != ("interval", "frozen features")
    }
    for row in results.leakage:
        assert row.ci95[0] <= row.accuracy <= row.ci95[1]


def test_baselines_are_on_the_same_images(results: Results) -> None:
    """Profiles and frozen features, on this split and across sources."""
    names = {row.name for row in results.baselines}
    for model in ("profiles + SVM", "frozen features + logistic regression"):
        for rows in ("test", "fit on one, test on two", "fit on two, test on one"):
            assert f"{rows}, {model}" in names
    assert {row.images for row in results.baselines if row.name.startswith("test, ")} == {
        results.assessed[0].evaluations[0].images
    }


def test_the_incumbent_is_run_on_the_same_images(results: Results) -> None:
    """Accuracy and AUROC of every test row; its card's rows of other images do not count."""
    own = {row.name for row in results.assessed[0].evaluations if row.name.startswith("test")}
    assert {verdict.row for verdict in results.verdicts} == own
    for verdict in results.verdicts:
        assert verdict.as_good == (verdict.ours >= verdict.published)


def test_the_run_keeps_what_it_takes_to_repeat_it(folder: Path, results: Results) -> None:
    """Resolved config, command, hashes, environment, a log and scalars of each training."""
    run = folder / "run"
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["finetune"]["rate_fc"] == 0.005
    assert config["data"]["manifest"] == str(folder / "manifest.csv")
    assert results.command.startswith("python -m training reproduce")
    assert {"manifest: manifest.csv", "weights: weights.npz", "tensors"} <= set(results.data)
    assert {"torch", "CPU cores"} <= set(results.environment)
    for kind in KINDS:
        trained = run / "candidates" / f"{kind}-all-augmented"
        assert len((trained / "log.csv").read_text().splitlines()) == 2
        assert list(trained.glob("events.out.tfevents.*"))


def test_the_report_and_its_figures_are_written(folder: Path, results: Results) -> None:
    """Nine figures in both formats, and a page of one file that names every candidate."""
    run = folder / "run"
    figures = sorted(path.stem for path in (run / "figures").glob("*.png"))
    assert [name[:4] for name in figures] == [f"fig{number}" for number in range(1, 10)]
    assert figures == sorted(path.stem for path in (run / "figures").glob("*.svg"))
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        assert all(candidate.pretraining in text for candidate in results.candidates)


def test_a_study_can_publish(folder: Path, results: Results) -> None:
    """The chosen candidate serves, with its temperature in the graph and its bound in the card."""
    assert results.published == "smoke/0.0.1"
    version = Store(folder / "store").load("smoke/0.0.1")
    card = version.card
    assert card.temperature == results.calibration.temperature
    assert card.review_error_bound is not None
    assert card.review_error_bound.attained <= 0.5
    assert card.threshold == results.assessed[0].threshold
    assert card.evaluations == results.assessed[0].evaluations
    open_network(version)  # replays the probe


def test_a_finished_study_is_not_made_again(
    folder: Path, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --resume its folder is refused; with other settings as well."""
    before = (folder / "run" / "candidates" / "colour-all-augmented" / "best.pt").read_bytes()
    assert main(command(folder)) == 1
    assert "--resume" in capsys.readouterr().err
    assert main(command(folder, "--resume", "--split", "image")) == 1
    assert "other settings" in capsys.readouterr().err
    after = (folder / "run" / "candidates" / "colour-all-augmented" / "best.pt").read_bytes()
    assert before == after


def test_results_are_data(folder: Path) -> None:
    """results.json lists the nine with accuracy, n and interval for any other program."""
    found = json.loads((folder / "run" / "results.json").read_text())
    assert len(found["candidates"]) == 9
    for candidate in found["candidates"]:
        low, high = candidate["accuracy"]["ci95"]
        assert low <= candidate["accuracy"]["value"] <= high
