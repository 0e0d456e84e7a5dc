"""What a study trains on, in which order, and that a stop changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from studies import build, photographs, smoke

from training.data.manifest import LabelledImages, ManifestError, Row
from training.networks.googlenet import GoogLeNet
from training.study.config import Data, read_study
from training.study.data import ChildBatches, Radiographs, made, pairs_of
from training.study.frozen import Features, fit_head
from training.study.photographs import PhotoBatches, list_photographs, middle, read_photographs
from training.study.pretrain import pretrain
from training.study.records import agreement, flow
from training.study.reproduce import read_radiographs
from training.train import processes
from training.train.loop import BEST, CHECKPOINT, LOG, run_training
from training.train.trainer import Recipe, Trainer

CONFIGS = ROOT / "training/study/configs"
CPU = torch.device("cpu")
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.mktemp("data")
    build(own)
    return own


def radiographs(count: int = 6) -> Radiographs:
    random = np.random.default_rng(0)
    rows = tuple(
        Row(f"{i}.png", "frontal" if i % 2 else "lateral", f"p{i}", "a") for i in range(count)
    )
    tensors = random.integers(0, 256, (count, 1, SIDE, SIDE)).astype(np.uint8)
    return Radiographs(LabelledImages(rows, tensors), ("train",) * count)


def batches(count: int = 6, **changed: object) -> ChildBatches:
    given = {
        "batch": 12, "epoch_images": None, "balance": False, "seed": 3, "device": CPU,
    } | changed  # fmt: skip
    return ChildBatches(radiographs(count), np.arange(count), **given)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", ["paper", "here", "smoke"])
def test_shipped_configurations_are_studies(name: str, tmp_path: Path) -> None:
    """Each is read, and what is kept of it in a run reads as the same study."""
    study = read_study(CONFIGS / f"{name}.toml")
    study.save(tmp_path)
    assert read_study(tmp_path / "config.toml") == study


def test_paper_toml_is_the_published_protocol() -> None:
    """30 epochs, the rate divided by 10 every 10, 106 children, 60/20/20, three by three."""
    study = read_study(CONFIGS / "paper.toml")
    assert study.pretrain.kinds == ("colour", "full-greyscale", "subset-greyscale")
    assert study.finetune.methods == ("fc-originals", "fc-augmented", "all-augmented")
    for part in (study.pretrain, study.finetune):
        assert (part.epochs, part.decay_epochs, part.batch) == (30, 10, 24)
        assert part.epoch_images is None
        assert part.weight_decay == 0.0005
    assert (study.pretrain.rate, study.finetune.rate_fc, study.finetune.rate_all) == (
        0.0005, 0.005, 0.0005,
    )  # fmt: skip
    assert study.finetune.children == 106
    assert not study.finetune.balance
    assert study.preprocess.window_percentiles == (0, 100)
    assert (study.split.validation, study.split.test) == (0.2, 0.2)


def test_all_mistakes_of_a_configuration_are_listed(tmp_path: Path) -> None:
    """Unknown keys and impossible values, each with its place."""
    file = tmp_path / "bad.toml"
    file.write_text('title = "x"\n[data]\nmanifest = "m"\n[finetune]\nepochs = 0\nspeed = 1\n')
    with pytest.raises(ValueError, match="is no study") as caught:
        read_study(file)
    for place in ("data.images", "data.weights", "finetune.epochs", "finetune.speed"):
        assert place in str(caught.value)
    with pytest.raises(ValueError, match="KEY=VALUE"):
        read_study(CONFIGS / "smoke.toml", ["seed"])
    file.write_text("title = ")
    with pytest.raises(ValueError, match=r"bad\.toml"):
        read_study(file)


def test_shipped_configurations_are_found_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From any folder; a file of that name in it comes first, and an unknown one is an error."""
    monkeypatch.chdir(tmp_path)
    assert read_study(Path("paper.toml")) == read_study(CONFIGS / "paper.toml")
    (tmp_path / "paper.toml").write_text((CONFIGS / "smoke.toml").read_text())
    assert read_study(Path("paper.toml")).title == "Smoke"
    with pytest.raises(FileNotFoundError):
        read_study(Path("nowhere.toml"))


def test_settings_change_from_the_command_line() -> None:
    """Numbers and lists as in TOML, paths without quotes."""
    study = read_study(
        CONFIGS / "smoke.toml",
        ["seed=7", "data.images=/a b/c.zip", 'pretrain.kinds=["colour"]', "publish.version=1.2.3"],
    )
    assert (study.seed, study.data.images, study.pretrain.kinds, study.publish.version) == (
        7, Path("/a b/c.zip"), ("colour",), "1.2.3",
    )  # fmt: skip


# ---------------------------------------------------------------- what stops before it starts


def test_a_study_that_cannot_end_does_not_start(folder: Path, tmp_path: Path) -> None:
    """A bound that validation is too small for, and no photographs, are found at once."""
    with pytest.raises(ManifestError, match="needs 149 validation images"):
        read_radiographs(smoke(folder, "assess.error_bound=0.02"))
    nowhere = smoke(folder, f"data.photographs={tmp_path}")
    with pytest.raises(ManifestError, match="fewer than two classes"):
        read_radiographs(nowhere)
    without = nowhere.model_copy(
        update={"data": nowhere.data.model_copy(update={"photographs": None})}
    )
    with pytest.raises(ManifestError, match=r"data\.photographs is not given"):
        read_radiographs(without)


def test_a_part_without_a_view_is_refused(folder: Path, tmp_path: Path) -> None:
    """A manifest's own split may leave a part without laterals: all such parts are named."""
    lines = (folder / "manifest.csv").read_text().splitlines()
    parted = [lines[0] + ",split"]
    for number, line in enumerate(lines[1:]):
        part = "test" if number % 3 == 0 and ",frontal," in line else "train"
        parted.append(f"{line},{part}")
    # patients stay whole: every image of a patient goes where its first goes
    first: dict[str, str] = {}
    rows = []
    for line in parted[1:]:
        patient, part = line.split(",")[2], line.rsplit(",", 1)[1]
        rows.append(f"{line.rsplit(',', 1)[0]},{first.setdefault(patient, part)}")
    (tmp_path / "manifest.csv").write_text("\n".join([parted[0], *rows]))
    with pytest.raises(ManifestError) as caught:
        read_radiographs(smoke(folder, f"data.manifest={tmp_path / 'manifest.csv'}"))
    assert "test holds no lateral image after the split" in caught.value.problems
    assert "validation holds no frontal image after the split" in caught.value.problems


def test_the_readers_agreement_is_put_into_words(folder: Path, tmp_path: Path) -> None:
    """Kappa with n and conflicts, as `merge-readers` wrote it; nothing where one reader read."""
    file = tmp_path / "agreement.json"
    file.write_text('{"kappa": 0.98765, "n": 1377, "agreement": 0.995, "conflicts": 7}')
    assert agreement(smoke(folder)) is None
    words = agreement(smoke(folder, f"data.agreement={file}"))
    assert words is not None
    assert "kappa 0.9877 (n = 1377)" in words
    assert "99.50%, and 7 conflicts" in words


def test_exclusions_are_counted_by_reason(folder: Path, tmp_path: Path) -> None:
    """What preparing the manifest left out stands in the flow of images."""
    file = tmp_path / "exclusions.csv"
    file.write_text("file,reason\na.png,oblique\nb.png,oblique\nc.png,CT\n")
    study = smoke(folder, f"data.exclusions={file}")
    steps = flow(study, radiographs())
    assert (steps[0].images, steps[1].images) == (9, 6)
    assert steps[1].excluded == {"oblique": 2, "CT": 1}


# -------------------------------------------------------------------------------------- order


def test_an_epoch_is_every_child_of_every_image_once() -> None:
    """6 images x 106 children = 636 = 53 batches of 12, in another order each epoch."""
    source = batches()
    assert source.steps == 53
    orders = []
    for epoch in range(2):
        source.batch(epoch * 53)
        orders.append(
            list(zip(source.order.images.tolist(), source.order.kinds.tolist(), strict=True))
        )
        assert sorted(orders[-1]) == [(i, k) for i in range(6) for k in range(106)]
    assert orders[0] != orders[1]


def test_a_batch_depends_on_its_step_alone() -> None:
    """Asked for out of order, a step's batch is the same."""
    forward, backward = batches(), batches()
    found = {step: forward.batch(step) for step in (0, 5, 60)}
    for step in (60, 0, 5):
        tensors, labels = backward.batch(step)
        assert torch.equal(tensors, found[step][0])
        assert torch.equal(labels, found[step][1])


def test_processes_share_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes' shares together are the one process's batch."""
    whole = batches().batch(7)[0]
    shares = []
    for rank in range(2):
        monkeypatch.setattr(processes, "count", lambda: 2)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(batches().batch(7)[0])
    together = torch.stack(shares, dim=1).flatten(0, 1)
    assert torch.equal(together, whole)


def test_balance_draws_the_rarer_view_as_often() -> None:
    """One lateral among eleven frontals is half of what is drawn."""
    given = radiographs(12)
    rows = tuple(
        replace(row, view="lateral" if i == 0 else "frontal") for i, row in enumerate(given.rows)
    )
    uneven = Radiographs(LabelledImages(rows, given.images.tensors), given.parts)
    source = ChildBatches(
        uneven, np.arange(12), batch=8, epoch_images=1200, balance=True, seed=1, device=CPU
    )
    source.batch(0)
    assert 0.45 < (source.order.images == 0).float().mean() < 0.55


def test_the_first_child_of_a_pair_list_is_the_image(folder: Path) -> None:
    """Each image comes with itself and different other children, the same for the same seed."""
    pairs = pairs_of(np.array([4, 9]), 8, seed=2)
    kinds = pairs.kinds.view(2, 8)
    assert kinds[:, 0].tolist() == [0, 0]
    assert all(len(set(own.tolist())) == 8 for own in kinds)
    assert kinds[0].tolist() != kinds[1].tolist()
    assert torch.equal(pairs.kinds, pairs_of(np.array([4, 9]), 8, seed=2).kinds)
    given = radiographs()
    own = made(given, pairs_of(np.array([3]), 1, seed=2), 2, CPU)
    assert torch.equal(own[0], torch.from_numpy(given.images.tensors[3]).float())


# ------------------------------------------------------------------------------ stop and go on


def trainer(steps: int = 6) -> Trainer:
    torch.manual_seed(1)
    recipe = Recipe(steps=steps, rate=0.001, decay_steps=2, seed=1)
    return Trainer(GoogLeNet(auxiliary=False), batches(batch=2), recipe, CPU)


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return state


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_bit_exactly(tmp_path: Path) -> None:
    """Stopped in the midst of an epoch, a run ends with the weights of an unbroken one."""
    before = signal.getsignal(signal.SIGINT)  # a runner in the background ignores it
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    run_training(trainer(), lambda _: 1.0, unbroken, 3)
    broken = trainer()
    step = broken.train_step

    def interrupted() -> float:
        loss = step()
        if broken.step == 2:
            signal.raise_signal(signal.SIGINT)
        return loss

    broken.train_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run_training(broken, lambda _: 1.0, stopped, 3)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(stopped / CHECKPOINT, weights_only=True)["step"] == 2
    run_training(trainer(), lambda _: 1.0, stopped, 3)
    whole, resumed = (weights_of(each / CHECKPOINT) for each in (unbroken, stopped))
    assert whole["step"] == resumed["step"] == 6
    for name, value in whole["network"].items():  # type: ignore[union-attr]
        assert torch.equal(value, resumed["network"][name])  # type: ignore[index]


def test_the_strictly_best_epoch_is_kept(tmp_path: Path) -> None:
    """Of equals the earlier stays; a worse one changes nothing."""
    scores = iter((0.5, 0.5, 0.7))
    kept = []

    def judge(_: GoogLeNet) -> float:
        kept.append((tmp_path / BEST).exists() and (tmp_path / BEST).read_bytes())
        return next(scores)

    run_training(trainer(3), judge, tmp_path, 1)
    assert kept[0] is False
    assert kept[1] == kept[2] == (tmp_path / BEST).read_bytes()
    assert len((tmp_path / LOG).read_text().splitlines()) == 3


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Gloo and DistributedDataParallel: the weights move as in one process, but for rounding."""
    script = Path(__file__).parent.parent / "distributed.py"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(script.parent))),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for count in ("1", "2"):
        command = [*launch, count, str(script), str(tmp_path / count)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
    torch.manual_seed(1)
    start = GoogLeNet(auxiliary=False).state_dict()
    alone, together = (weights_of(tmp_path / count / BEST) for count in ("1", "2"))
    for name in ("conv1.weight", "inc4a.b3.weight", "fc.weight"):
        moved = (alone[name] - start[name]).abs().max()
        assert moved > 0
        assert (together[name] - alone[name]).abs().max() < 0.001 * moved


# ---------------------------------------------------------------------------- frozen features


def test_a_head_on_separable_features_learns_them() -> None:
    """Fully connected layers alone tell two clouds apart, and the best epoch's are returned."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    values = torch.randn(200, 1024, generator=random) + 0.3 * labels[:, None]
    pairs = pairs_of(np.arange(200), 1, seed=0)
    features = Features(values, pairs, labels, rate=1.0)
    options, given = read_study(CONFIGS / "smoke.toml").finetune, radiographs(200)
    head = fit_head(given, features, features, options, seed=1)
    assert ((head.pfi(values) >= 0.5) == labels.numpy()).mean() == 1
    assert head.seen == options.frozen_epochs * 200
    again = fit_head(
        given, features, features, options.model_copy(update={"balance": True}), seed=1
    )
    assert ((again.pfi(values) >= 0.5) == labels.numpy()).mean() == 1


# ------------------------------------------------------------------------------- photographs


def data(photographs: Path, **more: Path) -> Data:
    return Data(
        manifest=Path("m"), images=Path("i"), weights=Path("w"), photographs=photographs, **more
    )


def test_photographs_lie_in_a_folder_a_class_or_in_a_zip_of_them(tmp_path: Path) -> None:
    """Both are listed alike; about one in twenty validates; the subset is the classes listed."""
    photographs(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in (tmp_path / "photos").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path / "photos"))
    classes = tmp_path / "classes.txt"
    classes.write_text("class0 class2")
    folder = list_photographs(data(tmp_path / "photos", subset_classes=classes), subset=False)
    zipped = list_photographs(data(tmp_path / "photos.zip", subset_classes=classes), subset=False)
    assert folder == zipped
    assert len(folder) == 120
    assert 1 <= sum(photo.validation for photo in folder) <= 15
    subset = list_photographs(data(tmp_path / "photos", subset_classes=classes), subset=True)
    assert {photo.label for photo in subset} == {"class0", "class2"}
    pictures = read_photographs(folder, tmp_path / "photos.zip", 40, tmp_path)
    assert pictures.shape == (120, 40, 40)
    assert middle(pictures, 32).shape == (120, 32, 32)


def test_a_manifest_of_photographs_says_which_validate(tmp_path: Path) -> None:
    """Columns file, label, split and subset; a missing one is named."""
    file = tmp_path / "photos.csv"
    file.write_text("file,label,split,subset\na.png,x,train,1\nb.png,y,val,0\nc.png,y,train,0\n")
    found = list_photographs(data(tmp_path, photographs_manifest=file), subset=False)
    assert [(p.label, p.validation, p.subset) for p in found] == [
        ("x", False, True), ("y", True, False), ("y", False, False),
    ]  # fmt: skip
    file.write_text("file,label,split,subset\na.png,x,train,1\nb.png,y,train,0\n")
    with pytest.raises(ManifestError, match="no photograph to validate"):
        list_photographs(data(tmp_path, photographs_manifest=file), subset=False)
    file.write_text("file,label\na.png,x\n")
    with pytest.raises(ManifestError, match="split"):
        list_photographs(data(tmp_path, photographs_manifest=file), subset=False)


def test_all_bad_photographs_are_listed(tmp_path: Path) -> None:
    """Missing and unreadable ones at once, and no half-filled cache stays behind."""
    photographs(tmp_path / "photos", each=4)
    (tmp_path / "photos" / "class0" / "1.png").write_bytes(b"no image")
    photos = list_photographs_of(tmp_path)
    (tmp_path / "photos" / "class1" / "2.png").unlink()
    with pytest.raises(ManifestError) as caught:
        read_photographs(photos, tmp_path / "photos", 40, tmp_path)
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == [
        "class0/1.png", "class1/2.png",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.npy"))


def list_photographs_of(folder: Path) -> list:
    file = folder / "photos.csv"
    lines = ["file,label,split,subset"]
    for number, path in enumerate(sorted((folder / "photos").rglob("*.png"))):
        name = path.relative_to(folder / "photos").as_posix()
        lines.append(f"{name},{path.parent.name},{'val' if number % 4 == 0 else 'train'},1")
    file.write_text("\n".join(lines))
    return list_photographs(data(folder / "photos", photographs_manifest=file), subset=False)


def test_photographs_are_cropped_at_random_and_again_the_same() -> None:
    """A step's crops follow from the seed and the step; both mirrored and not occur."""
    ramp = np.tile(np.arange(40, dtype=np.uint8), (60, 40, 1))
    source = PhotoBatches(
        ramp, np.arange(60), np.arange(60), size=32, batch=24, epoch_images=None, seed=5, device=CPU
    )
    assert source.steps == 2
    crops, labels = source.batch(1)
    assert crops.shape == (24, 1, 32, 32)
    again, _ = source.batch(1)
    assert torch.equal(crops, again)
    rising = (crops[:, 0, 0, 1] > crops[:, 0, 0, 0]).float().mean()
    assert 0.1 < rising < 0.9
    assert len(set(labels.tolist())) == 24


def test_pre_trained_weights_start_the_next_training(folder: Path, tmp_path: Path) -> None:
    """What pre-training leaves is what fine-tuning loads, and it differs from where it started."""
    study = smoke(folder, "pretrain.epochs=1", "pretrain.epoch_images=8")
    found = pretrain(study, "subset-greyscale", tmp_path)
    with np.load(found.weights) as after, np.load(study.data.weights) as before:
        assert "fc.weight" in after.files
        assert after["fc.weight"].shape == (2, 1024)
        assert not np.array_equal(after["conv2.weight"], before["conv2.weight"])
    assert (tmp_path / "pretrain/subset-greyscale/validation.csv").exists()
    assert pretrain(study, "subset-greyscale", tmp_path) == found
    assert pretrain(study, "colour", tmp_path).weights == study.data.weights


def test_a_version_is_wanted_only_with_what_it_takes() -> None:
    """Publishing needs a probe, and "as good" an incumbent; both are checked when it is read."""
    with pytest.raises(ValueError, match="without a probe"):
        read_study(CONFIGS / "smoke.toml", ["publish.when=always"])
    with pytest.raises(ValueError, match="needs an incumbent"):
        read_study(CONFIGS / "smoke.toml", ["publish.when=as good", "publish.probe=p.png"])
