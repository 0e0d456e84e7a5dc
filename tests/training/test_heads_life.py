"""The life of a network with several heads in miniature: fit, resume, test, leave out, publish."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import DATA
from images import radiograph
from labelled import write_labelled
from resuming import assert_resumes_exactly

from model_store import DEFAULT_MODEL, HeadEvaluation, Heads, Store
from service.imaging import image_to_tensor
from service.inference import open_network
from training.__main__ import main
from training.augmentation.corruptions import CORRUPTIONS
from training.data.manifest import Row, read_images, read_manifest
from training.evaluate.cutoff import FLAGGED_CHESTS, UNMARKED_PIECES, chest_cutoff
from training.evaluate.heads import oriented
from training.evaluate.onnx_predictors import heads_predictor
from training.export.publish import LIMITATIONS_OF_HEADS
from training.export.recalibrate import old_chest_stays
from training.networks.heads import CLASSES
from training.train.fit import HEAD_WEIGHTS, HeadsJudge, make_trainer
from training.train.settings import FitSettings, rows_of

PATIENTS = 10
TASKS = ("chest", "rotation", "inverted", "mirrored")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of radiographs, the synthetic thorax and half of it, and two of noise."""
    folder = tmp_path_factory.mktemp("data")
    images = []
    for number in range(PATIENTS):
        for source in ("one", "two"):
            seed = number + 100 * (source == "two")
            picture = radiograph(140, 128, bits=8, seed=seed).astype(np.uint8)
            for view, pixels in (("frontal", picture), ("lateral", picture[:, :64])):
                images.append((f"{source}-{view}-{number}", view, source, pixels))
        for source in ("hands", "knees"):
            noise = np.random.default_rng(number + len(source)).integers(0, 256, (90, 80))
            images.append((f"{source}-{number}", "not_chest", source, noise.astype(np.uint8)))
    write_labelled(folder, images)
    return folder


def options(data: Path) -> list[str]:
    paths = ["--manifest", str(data / "manifest.csv"), "--images", str(data)]
    small = ["--network", "swift", "--size", "64", "--steps", "2", "--batch", "4"]
    return [*paths, *small, "--check-every", "1", "--children", "1", "--heads", *TASKS]


@pytest.fixture(scope="module")
def tested(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, from scratch, tested."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", str(folder), *options(data)]) == 0
    assert main(["test", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def published(tested: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the run as tiny/2.0.0."""
    store = tmp_path_factory.mktemp("store")
    command = ["publish", str(tested), "--name", "tiny", "--version", "2.0.0", "--force"]
    probe = DATA / "frontal-0003.jpg"
    assert main([*command, "--probe", str(probe), "--store", str(store)]) == 0
    return store


def test_a_run_leaves_the_cutoffs_of_all_heads(tested: Path) -> None:
    """Of validation images alone; that of the view as always."""
    heads = Heads.model_validate_json((tested / "heads.json").read_bytes())
    assert heads.chest is not None
    assert heads.inverted is not None
    assert heads.mirrored is not None
    assert (heads.rotation, heads.evidence) == (True, True)
    rows = rows_of(FitSettings.load(tested), "validation")
    radiographs = [row for row in rows if row.view != "not_chest"]
    assert heads.chest.plateau.images == 16 * len(rows)
    assert heads.inverted.plateau.images == 16 * len(radiographs)
    assert heads.mirrored.plateau.images == 8 * len(radiographs)
    assert json.loads((tested / "cutoff.json").read_text())["images"] == 2 * len(radiographs)


def test_a_test_reports_all_heads_and_all_corruptions(tested: Path) -> None:
    """Views of radiographs only; `chest` of all images; orientation of radiographs in 16 ways."""
    report = json.loads((tested / "test.json").read_text())
    names = [row["name"] for row in report["evaluations"]]
    assert names[:3] == ["test", "test: one", "test: two"]
    assert [f"test, corruptions: {name}" for name in CORRUPTIONS] == names[-len(CORRUPTIONS) :]
    rows = [HeadEvaluation.model_validate(row) for row in report["head_evaluations"]]
    named = {(row.task, row.name): row for row in rows}
    test = rows_of(FitSettings.load(tested), "test")
    frontal = sum(row.view == "frontal" for row in test)
    radiographs = sum(row.view != "not_chest" for row in test)
    assert named["chest", "test"].images == len(test)
    assert set(named["chest", "test: hands"].by_class) == {"not_chest"}
    assert named["rotation", "test"].accuracy.n == 16 * radiographs
    assert set(named["rotation", "test"].by_class) == {"0", "90", "180", "270"}
    assert named["mirrored", "test"].accuracy.n == 16 * frontal
    assert ("rotation", "test: hands") not in named
    errors = [report["evaluations"][0]["calibration_error"]]
    errors += [named[task, "test"].calibration_error for task in TASKS if task != "rotation"]
    assert all(0 <= error <= 1 for error in errors)


def test_a_published_run_gives_all_outputs_under_a_card_of_version_2(
    tested: Path, published: Path
) -> None:
    """Each output as the card says of the probe; the map of evidence adds up to the PFI."""
    probe = DATA / "frontal-0003.jpg"
    version = Store(published).load("tiny/2.0.0")
    card = version.card
    assert card.card_version == 2
    assert card.heads == Heads.model_validate_json((tested / "heads.json").read_bytes())
    assert card.limitations == LIMITATIONS_OF_HEADS
    assert {row.task for row in card.head_evaluations} == set(TASKS)
    assert {source.name: source.not_chest for source in card.data}["hands"] == 8
    assert card.split_seed == FitSettings.load(tested).seed
    session = onnxruntime.InferenceSession(version.model)
    names = [output.name for output in session.get_outputs()]
    assert names == ["pfi", *TASKS, "evidence"]
    tensors = image_to_tensor(probe.read_bytes(), card.preprocess)[np.newaxis]
    found = dict(zip(names, session.run(names, {"tensors": tensors}), strict=True))
    assert found["pfi"][0] == pytest.approx(card.probe_pfi, abs=1e-5)
    for name in TASKS:
        np.testing.assert_allclose(np.ravel(found[name]), card.probe_outputs[name], atol=1e-5)
    logit = np.log(card.probe_pfi / (1 - card.probe_pfi))
    assert found["evidence"].mean() == pytest.approx(logit, abs=1e-3)


def test_what_is_left_out_is_the_test(data: Path, tmp_path: Path) -> None:
    """A source of radiographs and one of others; neither trains nor validates."""
    command = ["fit", str(tmp_path / "run"), *options(data), "--leave-out", "two", "knees"]
    assert main(command) == 0
    settings = FitSettings.load(tmp_path / "run")
    for part in ("train", "validation"):
        assert {row.source for row in rows_of(settings, part)} == {"one", "hands"}
    assert main(["test", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "test.json").read_text())
    assert [row["name"] for row in report["evaluations"]] == [
        "left out: two, knees",
        "left out: two, knees: two",
    ]
    assert report["evaluations"][0]["images"] == 2 * PATIENTS
    chest = [row for row in report["head_evaluations"] if row["task"] == "chest"]
    assert [row["images"] for row in chest] == [3 * PATIENTS, PATIENTS, 2 * PATIENTS, 2 * PATIENTS]
    assert "without a mark" in chest[-1]["note"]


def test_a_run_may_begin_with_a_published_version(data: Path, tmp_path: Path) -> None:
    """Its card names the version, and what trained that."""
    run, begin = str(tmp_path / "run"), ["--start", "swift/1.1.0", "--size", "128"]
    assert main(["fit", run, *options(data), *begin]) == 0
    assert main(["test", run]) == 0
    command = ["publish", run, "--name", "tiny", "--version", "2.0.0", "--force"]
    command += ["--probe", str(DATA / "frontal-0003.jpg"), "--store", str(tmp_path / "store")]
    assert main(command) == 0
    card = Store(tmp_path / "store").load("tiny/2.0.0").card
    assert card.derived_from == "swift/1.1.0"
    earlier = Store().load("swift/1.1.0").card.data
    assert {each.name for each in card.data} == {"one", "two", "hands", "knees"} | {
        each.name for each in earlier
    }
    (clinic,) = (each for each in card.data if each.name == "clinic")
    assert clinic.note.endswith("of swift/1.1.0")
    assert card.probe_pfi == pytest.approx(Store().load("swift/1.1.0").card.probe_pfi, abs=0.1)


def test_what_trained_the_start_cannot_test(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that a published version has seen is not left out by leaving it out now."""
    manifest = tmp_path / "manifest.csv"
    manifest.write_text((data / "manifest.csv").read_text().replace(",two", ",clinic"))
    command = ["fit", str(tmp_path / "run"), *options(data), "--manifest", str(manifest)]
    command += ["--leave-out", "clinic", "--start", "swift/1.1.0", "--size", "128"]
    assert main(command) != 0
    assert "swift/1.1.0 was trained on clinic" in capsys.readouterr().err
    assert not (tmp_path / "run" / "settings.json").exists()


def test_another_split_than_that_of_the_start_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of the images that trained the start would test the run; not if the manifest splits."""
    lines = (data / "manifest.csv").read_text().replace(",two", ",clinic").splitlines()
    manifest, run = tmp_path / "manifest.csv", tmp_path / "run"
    manifest.write_text("\n".join(lines) + "\n")
    command = ["fit", str(run), *options(data), "--manifest", str(manifest)]
    command += ["--start", DEFAULT_MODEL, "--size", "128"]
    assert main([*command, "--seed", "3"]) == 1
    error = capsys.readouterr().err
    assert f"{DEFAULT_MODEL} was trained on images of clinic that would validate or test" in error
    assert "use --seed 2, or name each image's part in the column `split`" in error
    assert not (run / "settings.json").exists()
    parts = ["split", *(("train", "validation", "test")[i // 6 % 3] for i in range(len(lines) - 1))]
    named = (f"{line},{part}" for line, part in zip(lines, parts, strict=True))
    manifest.write_text("\n".join(named) + "\n")
    assert main([*command, "--seed", "3"]) == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--batch", "0", "--check-every", "0"], "batch is 0, below 1; check-every is 0, below 1"),
        (["--steps", "0"], "steps is 0, below 1"),
        (["--seed", "-1"], "seed is -1, below 0"),
        (["--rate", "nan"], "rate is nan, not a positive number"),
        (["--test-share", "1.5"], "test-share is 1.5, not 0 or more and below 1"),
        (["--heads", "chest", "chest"], "a head is asked twice: view chest chest"),
        (["--weights", "some.npz"], "swift has no pre-trained weights"),
        (["--start", "swift/9.9.9"], "swift/9.9.9"),
        (["--start", DEFAULT_MODEL], f"{DEFAULT_MODEL} takes images of 128 pixels: add --size 128"),
    ],
)
def test_what_no_run_can_have_is_refused_at_once(
    words: list[str], problem: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is wrong; and the folder stays free."""
    assert main(["fit", str(tmp_path / "run"), *options(data), *words]) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_version_of_the_package_is_not_published_again(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name would mean two networks; refused before the run is read."""
    name, version = DEFAULT_MODEL.split("/")
    command = ["publish", str(tested), "--name", name, "--version", version, "--force"]
    command += ["--probe", "missing.png", "--store", str(tmp_path)]
    (tmp_path / "missing.png").touch()
    assert main([*command, "--probe", str(tmp_path / "missing.png")]) == 1
    assert f"{DEFAULT_MODEL} is already published, in the package" in capsys.readouterr().err


def test_a_start_of_another_network_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to add; and the folder stays free."""
    command = ["fit", str(tmp_path / "run"), *options(data), "--start", "swift/1.1.0"]
    assert main([*command, "--network", "googlenet"]) == 1
    error = capsys.readouterr().err
    assert error == "error: swift/1.1.0 is no googlenet; add --network swift\n"
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_head_that_nothing_can_teach_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All such heads at once, of both parts, before images are read; and the folder stays free."""
    lines = (data / "manifest.csv").read_text().splitlines()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(line for line in lines if "not_chest" not in line) + "\n")
    command = ["fit", str(tmp_path / "run"), *options(data), "projection"]
    assert main([*command, "--manifest", str(manifest), "--images", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: the head chest needs train images that are not_chest, and there are none",
        "the head projection needs train images that are PA or AP, and there are none",
    ]
    assert not (tmp_path / "run" / "settings.json").exists()


def test_problems_of_manifest_and_images_are_still_listed_together(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest with errors is not refused before its images are read, whatever the heads lack."""
    manifest = tmp_path / "manifest.csv"
    lines = (data / "manifest.csv").read_text().replace("not_chest", "hand").splitlines()
    manifest.write_text("\n".join([*lines, "missing.png,frontal,p99,one"]) + "\n")
    command = ["fit", str(tmp_path / "run"), *options(data), "--manifest", str(manifest)]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "view is 'hand', not frontal, lateral or not_chest" in error
    assert "missing.png is missing" in error


def test_poor_heads_are_published_only_by_force(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network whose views are right, but which calls hands chest radiographs."""
    run = tmp_path / "run"
    shutil.copytree(tested, run)
    report = json.loads((run / "test.json").read_text())
    for row in report["evaluations"]:
        for share in ("accuracy", "sensitivity", "specificity"):
            row[share]["value"] = 1.0
    for row in report["head_evaluations"]:
        for answer, share in row["by_class"].items():
            share["value"] = 0.5 if answer == "not_chest" else 1.0
    (run / "test.json").write_text(json.dumps(report))
    command = ["publish", str(run), "--name", "tiny", "--version", "2.0.0"]
    command += ["--probe", str(DATA / "frontal-0003.jpg"), "--store", str(tmp_path / "store")]
    assert main(command) == 1
    assert "chest, answer not_chest, on the held-out images is 50.00%, below 95%" in (
        capsys.readouterr().err
    )


def test_a_resumed_run_ends_where_an_unbroken_one_does(tested: Path, tmp_path: Path) -> None:
    """Bit by bit, as that of the view alone."""
    settings = replace(FitSettings.load(tested), steps=3)
    train = read_images(rows_of(settings, "train"), settings.images, settings.double_spec)
    make = partial(make_trainer, settings, train, torch.device("cpu"))
    assert_resumes_exactly(make, tmp_path / "checkpoint.pt")


def test_weights_are_judged_by_all_heads(tested: Path) -> None:
    """Uniform answers cost the logarithm of the classes, however many images ask each."""
    settings = FitSettings.load(tested)
    trainer = make_trainer(
        settings,
        read_images(rows_of(settings, "train"), settings.images, settings.double_spec),
        torch.device("cpu"),
    )
    with torch.no_grad():
        trainer.network.fc.weight.zero_()
        trainer.network.fc.bias.zero_()
    weights = {"view": 1.0, **HEAD_WEIGHTS}
    expected = sum(weights[head] * np.log(CLASSES[head]) for head in settings.heads)
    judge = HeadsJudge.of(settings, torch.device("cpu"))
    assert judge.loss(trainer.network) == pytest.approx(expected, rel=1e-4)


def test_without_heads_a_manifest_with_negatives_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published protocol knows two views; an image of neither must not count as lateral."""
    command = options(data)[: options(data).index("--heads")]
    assert main(["fit", str(tmp_path / "run"), *command]) == 1
    assert "view is 'not_chest', not frontal or lateral" in capsys.readouterr().err


def test_a_teacher_of_several_heads_is_refused(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student would learn one of them; and the folder stays free."""
    command = ["distil", str(tmp_path / "run"), "--teacher", str(tested)]
    assert main([*command, "--photographs", str(tmp_path)]) == 1
    assert "a student learns the view alone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_sixteen_ways_to_lie_are_told_rightly() -> None:
    """Turned clockwise and mirrored as told, every image is the original again."""
    original = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    ways = list(oriented(original))
    assert len({shown.tobytes() for shown, _ in ways}) == len(ways) == 16
    for shown, right in ways:
        undone = 255 - shown if right["inverted"] else shown
        undone = np.rot90(undone, -right["rotation"], axes=(2, 3))
        undone = undone[..., ::-1] if right["mirrored"] else undone
        np.testing.assert_array_equal(undone, original)


def test_few_chests_are_called_something_else() -> None:
    """Where negatives lie among radiographs, the cutoff spares the radiographs."""
    random = np.random.default_rng(0)
    chest = np.concatenate((random.beta(9, 2, 5000), random.beta(2, 9, 5000))).astype(np.float32)
    truth = np.arange(10_000) < 5000
    found = chest_cutoff(chest, truth, chest[truth], 1.0, "made")
    assert found.threshold < found.plateau.low
    assert (chest[truth] < found.threshold).mean() <= FLAGGED_CHESTS
    far = np.where(truth, 0.9, 0.1).astype(np.float32)
    apart = chest_cutoff(far, truth, far[truth], 1.0, "made")
    assert apart.threshold == pytest.approx(0.5)
    assert apart.review_band.low < 0.5 < apart.review_band.high


def test_few_pieces_of_a_thorax_are_called_something_else_without_a_mark() -> None:
    """The band of `chest` reaches down to them, and no further; its upper end stays."""
    truth = np.arange(2000) < 1000
    chest = np.where(truth, 0.9, 0.1).astype(np.float32)
    pieces = np.linspace(0.001, 0.999, 999, dtype=np.float32)
    near = chest_cutoff(chest, truth, chest[truth], 1.0, "made")
    wide = chest_cutoff(chest, truth, pieces, 1.0, "made")
    assert wide.threshold == near.threshold
    assert wide.review_band.high == near.review_band.high
    assert wide.review_band.low == pytest.approx(UNMARKED_PIECES, abs=0.002)
    assert (pieces < wide.review_band.low).mean() <= UNMARKED_PIECES


@pytest.mark.parametrize(("patch", "others"), [(1, "none"), (2, "few"), (3, "easy")])
def test_a_site_refits_the_cutoffs_of_all_heads(
    patch: int, others: str, data: Path, published: Path, tmp_path: Path
) -> None:
    """On its own images; that of `chest` stays unless enough images speak against it."""
    store = Store(published)
    model = store.load("tiny/2.0.0")
    kept = read_manifest(data / "manifest.csv", negatives=True)
    images = read_images(kept, data, model.card.preprocess)
    # an untrained network's views are chance: a site's labels that it would get right
    order = np.argsort(heads_predictor(model.model)(images.tensors)["pfi"])
    rank = {int(at): place for place, at in enumerate(order)}
    site = tmp_path / "site"
    site.mkdir()
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source"))
        for at, row in enumerate(kept):
            if row.view == "not_chest" and others == "none":
                continue
            view = "frontal" if rank[at] > len(kept) / 2 else "lateral"
            view = row.view if row.view == "not_chest" else view
            number = int(Path(row.file).stem.rsplit("-", 1)[1])
            if others == "few" and row.source == "one" and number == 0:
                view = "not_chest"
            if others == "few" and row.view == "not_chest":
                continue
            for copy in range(3):  # a site's images are at least fifty
                name = f"{copy}-{row.file}"
                (site / name).write_bytes((data / row.file).read_bytes())
                writer.writerow((name, view, row.patient_id, row.source))
    command = ["calibrate", "tiny/2.0.0", "--manifest", str(tmp_path / "manifest.csv")]
    command += ["--images", str(site), "--version", f"2.0.{patch}"]
    assert main([*command, "--error-bound", "0.3", "--store", str(published)]) == 0
    old, new = (store.load(f"tiny/{v}").card for v in ("2.0.0", f"2.0.{patch}"))
    assert new.heads.inverted is not None
    assert new.heads.chest is not None
    assert "images of the site" in new.heads.inverted.plateau.measured_on
    assert new.heads.chest == old.heads.chest
    for row in new.head_evaluations:
        assert ("these images chose the cutoff" in row.note) == (row.task != "chest")


def test_the_cutoff_of_chest_moves_where_enough_images_speak_against_it() -> None:
    """Of ten patients or more, and where the old cutoff does worse than the best."""
    truth = np.arange(200) < 100
    chest = np.where(truth, 0.9, 0.1).astype(np.float32)
    found = chest_cutoff(chest, truth, chest[truth], 1.0, "made")
    hands = [Row(file=f"{i}", view="not_chest", patient_id=f"{i}", source="s") for i in range(10)]
    as_good, worse = (found.model_copy(update={"threshold": at}) for at in (0.85, 0.95))
    assert old_chest_stays(as_good, found, hands)
    assert not old_chest_stays(worse, found, hands)
    assert old_chest_stays(worse, found, hands[1:])
    assert old_chest_stays(worse, None, hands)


def test_the_integer_form_has_all_heads(tested: Path, published: Path) -> None:
    """Tested at its parent's cutoffs, with outputs of its own for the probe."""
    command = ["derive", "tiny/2.0.0", "--form", "int8", "--run", str(tested)]
    command += ["--name", "tiny-int8", "--version", "2.0.0", "--store", str(published)]
    assert main(command) == 0
    parent, version = (Store(published).load(f"{n}/2.0.0") for n in ("tiny", "tiny-int8"))
    assert version.card.heads == parent.card.heads
    assert {row.task for row in version.card.head_evaluations} == set(TASKS)
    network = open_network(version)  # which replays the probe of all heads
    tensor = image_to_tensor(version.probe, version.card.preprocess)
    assert network.evidence(tensor).ndim == 2
