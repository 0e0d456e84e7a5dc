"""PFI as a probability, the bound on errors outside the review band, and a site's own cutoff."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from images import png, radiograph
from torch import Tensor, nn

from model_store import DEFAULT_MODEL, ModelVersion, Prediction, SiteReport, Store
from service.inference import open_network
from training.data.manifest import ManifestError, read_images, read_manifest
from training.evaluate.calibration import (
    expected_calibration_error,
    fit_temperature,
    images_needed,
    logits_of,
    reliability,
    review_band_for,
    scaled,
    temperature_of,
    with_plateau,
)
from training.evaluate.cutoff import choose_threshold, youden_plateau
from training.export.recalibrate import FITTED_ON, add_command, pfi_of
from training.networks.googlenet import GoogLeNet, Logits, PfiNetwork

IMAGES = 64
Arrays = tuple[np.ndarray, np.ndarray]

pfis = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30).map(np.array)


def simulated(n: int, temperature: float, seed: int, frontal: float = 0.5) -> Arrays:
    """Logits that are `temperature` times the true log odds when views are balanced, and labels."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < frontal).astype(np.int64)
    odds = random.normal(np.where(labels == 1, 2.0, -2.0), 2.0)  # N(m, s2), N(-m, s2): 2mz/s2
    return odds * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("frontal", [0.5, 0.9])
def test_the_temperature_is_found(temperature: float, frontal: float) -> None:
    """Of 40,000 images, T is found to 5 %, whatever share of them is frontal."""
    logits, labels = simulated(40_000, temperature, seed=1, frontal=frontal)
    assert temperature_of(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_pfis_do_as_well_as_logits_until_they_are_clipped() -> None:
    """Where no PFI is next to 0 or 1, the two ways give one temperature."""
    logits, labels = simulated(5_000, 1.2, seed=2)
    pfi = 1 / (1 + np.exp(-logits))
    assert np.abs(logits).max() < 13
    assert fit_temperature(pfi, labels) == pytest.approx(temperature_of(logits, labels))
    assert np.isfinite(logits_of(np.array([0, 1], np.float32))).all()


@pytest.mark.parametrize(("pfi", "expected"), [([0.1, 0.2, 0.9], 1.0), ([0.9, 0.9, 0.1], 20.0)])
def test_a_temperature_has_ends(pfi: list[float], expected: float) -> None:
    """Without an error there is nothing to learn; with errors only, T is the highest."""
    found = fit_temperature(np.array(pfi), np.array([0, 0, 1]))
    assert found == pytest.approx(expected, rel=1e-3)


def test_one_view_has_no_temperature() -> None:
    """A loss that weighs both views the same needs both."""
    with pytest.raises(ValueError, match="both views"):
        fit_temperature(np.array([0.1, 0.2]), np.array([0, 0]))


@given(pfis, st.floats(0.05, 20))
def test_a_temperature_never_changes_the_order(pfi: np.ndarray, temperature: float) -> None:
    """Nor the side of 0.5, nor 0 and 1."""
    found = scaled(np.sort(pfi), temperature)
    assert (np.diff(found) >= 0).all()
    assert ((found > 0.5) <= (np.sort(pfi) > 0.5)).all()
    assert scaled(np.array([0.0, 0.5, 1.0], np.float32), temperature).tolist() == [0, 0.5, 1]


@given(pfis, st.floats(0.5, 2))
def test_scaling_is_undone_by_its_inverse(pfi: np.ndarray, temperature: float) -> None:
    """T and then 1 / T is nothing."""
    found = scaled(scaled(pfi, temperature), 1 / temperature)
    np.testing.assert_allclose(found, pfi, atol=1e-6)


class Linear(GoogLeNet):
    """Logits that are the means of the upper and the lower half of an image."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, x: Tensor) -> Logits:
        """(B, 1, S, S) -> (B, 2)."""
        return Logits(x.unflatten(2, (2, -1)).mean(dim=(1, 3, 4)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_network_divides_as_scaling_does(temperature: float) -> None:
    """Temperature inside the exported network, or on its PFIs afterwards: the same."""
    tensors = torch.randint(0, 9, (8, 1, 6, 6), dtype=torch.uint8)
    plain = PfiNetwork(Linear())(tensors).numpy()
    found = PfiNetwork(Linear(), temperature)(tensors).numpy()
    np.testing.assert_allclose(found, scaled(plain, temperature), atol=1e-5)
    assert plain.std() > 0.01


def test_calibrated_groups_have_no_error() -> None:
    """Where the share of frontal images is the PFI, the error is 0; off by d, it is d."""
    pfi = np.repeat([0.125, 0.5, 0.75, 1.0], 8)
    labels = np.concatenate([np.arange(8) < 8 * p for p in (0.125, 0.5, 0.75, 1.0)]).astype(int)
    assert expected_calibration_error(pfi, labels) == pytest.approx(0)
    assert expected_calibration_error(pfi[:24] + 0.03, labels[:24]) == pytest.approx(0.03)
    assert expected_calibration_error(np.ones(9), np.zeros(9, int)) == 1


def test_a_bin_holds_its_lower_end_and_the_last_one_both() -> None:
    """Every image is in one bin, empty bins are left out, and the count of frontals is exact."""
    pfi = np.array([0.0, 0.25, 0.49, 0.75, 1.0], np.float32)
    bins = reliability(pfi, np.array([0, 1, 0, 1, 1]), bins=4)
    assert [(b.low, b.high, b.images, b.frontal.count) for b in bins] == [
        (0, 0.25, 1, 0), (0.25, 0.5, 2, 1), (0.75, 1, 2, 2),
    ]  # fmt: skip
    assert [b.mean_pfi for b in bins] == pytest.approx([0, 0.37, 0.875])


def world(n: int, seed: int) -> Arrays:
    """PFIs whose answers at 0.5 are wrong the more often the nearer they lie to it: 15 % in all."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 3, n)
    frontal = random.random(n) < 1 / (1 + np.exp(-1.1 * z))
    return 1 / (1 + np.exp(-z)), frontal.astype(np.int64)


def flat_world(n: int, seed: int) -> Arrays:
    """PFIs whose answers at 0.5 are wrong equally often everywhere: 10.1 %."""
    random = np.random.default_rng(seed)
    pfi = random.random(n)
    return pfi, ((pfi >= 0.5) != (random.random(n) < 0.101)).astype(np.int64)


def error_outside(pfi: np.ndarray, labels: np.ndarray, low: float, high: float) -> float:
    out = (pfi < low) | (pfi > high)
    return float(((pfi >= 0.5) != (labels == 1))[out].mean())


@pytest.mark.parametrize(("draw", "answered"), [(world, 200), (flat_world, 0)])
def test_the_bound_is_kept_as_often_as_promised(
    draw: Callable[[int, int], Arrays], answered: int
) -> None:
    """Of 300 draws of 200 images, at most 5 % give a band that lets too many errors pass.

    In the flat world every band does, and the one that a scan would find is in a tenth of draws.
    """
    population = draw(1_000_000, 0)
    assert error_outside(*population, 0.5, 0.5) > 0.1  # without a band, the bound is missed
    broken, bands = 0, 0
    for seed in range(1, 301):
        try:
            band = review_band_for(*draw(200, seed), 0.5, 0.1, measured_on="draw").band
        except ValueError:
            continue
        bands += 1
        broken += error_outside(*population, band.low, band.high) > 0.1
    assert broken <= 0.05 * 300
    assert bands >= answered


@given(st.integers(0, 200), st.sampled_from([0.3, 0.5, 0.9, 0.9999999]))
def test_a_band_is_what_it_says(seed: int, threshold: float) -> None:
    """It holds the cutoff, is symmetric in logits, and leaves outside what it counts there."""
    pfi, labels = world(120, seed)
    pfi = pfi.astype(np.float32)
    found = review_band_for(pfi, labels, threshold, 0.7, measured_on="120 images")
    low, high = found.band.low, found.band.high
    outside = (pfi.astype(float) < low) | (pfi.astype(float) > high)
    assert low <= threshold <= high
    assert found.coverage.count == outside.sum()
    assert found.coverage.count >= 60
    assert found.attained <= found.error_bound
    if low > 0 and high < 1:
        ends = logits_of(np.array([low, threshold, high]))
        assert ends[2] - ends[1] == pytest.approx(ends[1] - ends[0], abs=1e-5)


def separated(n: int) -> Arrays:
    labels = np.arange(n) % 2
    return np.where(labels == 1, 0.8, 0.1) + np.arange(n) / (10 * n), labels


def test_as_many_images_as_are_needed_suffice() -> None:
    """59 right answers show at most 5 % errors with 95 % confidence; then no review is needed."""
    assert images_needed(0.05, 0.95) == 59
    found = review_band_for(*separated(59), 0.5, 0.05, measured_on="59 images")
    assert found.coverage.count == found.images == 59
    assert found.band.low == pytest.approx(0.5)
    assert found.attained == pytest.approx(1 - 0.05 ** (1 / 59))


def test_too_few_images_are_told_how_many_it_takes() -> None:
    """The refusal names the number, and what the given ones can show."""
    with pytest.raises(ValueError, match=r"needs 59 images, .* 58 can show 5\.03% at best"):
        review_band_for(*separated(58), 0.5, 0.05, measured_on="58 images")


def test_a_wrong_answer_far_away_is_no_reason_for_a_narrow_band() -> None:
    """An error among the images furthest from the cutoff stops the search at its start."""
    pfi, labels = separated(90)
    labels[-1] = 0
    with pytest.raises(ValueError, match="1 of the 59 answers furthest from the cutoff are wrong"):
        review_band_for(pfi, labels, 0.5, 0.05, measured_on="90 images")


def test_errors_next_to_the_cutoff_are_what_the_band_holds() -> None:
    """Three wrong answers near 0.5 lie in the band, and hardly any right one."""
    pfi, labels = separated(100)
    pfi, labels = np.append(pfi, [0.45, 0.48, 0.51]), np.append(labels, [1, 1, 0])
    found = review_band_for(pfi, labels, 0.5, 0.04, measured_on="103 images")
    assert found.band.low <= 0.48
    assert error_outside(pfi, labels, found.band.low, found.band.high) <= 0.01
    assert found.coverage.count >= 100


@pytest.mark.parametrize(("bound", "confidence"), [(0, 0.95), (1, 0.95), (0.05, 0), (0.05, 1)])
def test_nothing_is_sure_and_nothing_is_impossible(bound: float, confidence: float) -> None:
    """A bound or a confidence of 0 or 1 is no statement about images."""
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        images_needed(bound, confidence)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, version: ModelVersion) -> Path:
    """A folder of synthetic pictures, the half of them with the lowest PFIs labelled lateral."""
    folder = tmp_path_factory.mktemp("site")
    for number in range(IMAGES):
        picture = radiograph(96, 96, bits=8, seed=number).astype(np.uint8)
        columns = 96 - number // 2
        (folder / f"{number}.png").write_bytes(png(np.ascontiguousarray(picture[:, :columns])))
    write_manifest(folder / "any.csv", [number % 2 for number in range(IMAGES)])
    rows = read_manifest(folder / "any.csv")
    pfi = pfi_of(version, read_images(rows, folder, version.card.preprocess).tensors)
    write_manifest(folder / "manifest.csv", (pfi > np.median(pfi)).astype(int).tolist())
    np.save(folder / "pfi.npy", pfi)
    return folder


def write_manifest(path: Path, frontal: list[int], **columns: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("file", "view", "patient_id", "source"))
        writer.writeheader()
        for number, is_frontal in enumerate(frontal):
            view = ("lateral", "frontal")[is_frontal]
            row = {"file": f"{number}.png", "view": view, "patient_id": f"p{number}"}
            writer.writerow(row | {"source": "clinic"} | columns)


def calibrate(manifest: Path, store: Path, *words: str, model: str = "googlenet/1.1.0") -> None:
    """The command, as `python -m training` runs it."""
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    given = ["calibrate", model, "--manifest", str(manifest), "--images", str(manifest.parent)]
    options = parser.parse_args([*given, "--store", str(store), *words])
    options.command_line = "python -m training calibrate"
    options.run_command(options)


@pytest.fixture(scope="module")
def calibrated(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the site's own version of the shipped model."""
    store = Store(tmp_path_factory.mktemp("store"))
    calibrate(site / "manifest.csv", store.root, "--version", "1.0.1", "--name", "clinic")
    return store


def test_a_calibrated_version_serves(calibrated: Store, site: Path, version: ModelVersion) -> None:
    """Same weights, probe and sources, with cutoff and band from the site."""
    found = calibrated.load("clinic/1.0.1")
    card, old, pfi = found.card, version.card, np.load(site / "pfi.npy")
    assert (found.model, found.probe, card.data) == (version.model, version.probe, old.data)
    open_network(found)  # replays the probe
    frontal = pfi > np.median(pfi)
    assert (card.plateau.low, card.plateau.high) == (pfi[~frontal].max(), pfi[frontal].min())
    assert card.threshold == choose_threshold(card.plateau, "middle")
    assert all(
        (card.decide(Prediction(p)).view == "frontal") == f
        for p, f in zip(pfi, frontal, strict=True)
    )
    assert card.calibrated_from == "googlenet/1.1.0"
    assert card.limitations[:-1] == old.limitations
    assert "64 images of clinic" in card.limitations[-1]
    assert f"{old.threshold:.4f}, only" in card.limitations[-1]
    assert (card.training_command, card.probe_pfi) == (old.training_command, old.probe_pfi)
    assert card.publish_command == "python -m training calibrate"


def test_its_only_result_says_that_it_is_no_test(calibrated: Store) -> None:
    """One row, cross-fitted, and the bound of the band with its confidence."""
    card = calibrated.load("clinic/1.0.1").card
    (row,) = card.evaluations
    assert row.name == "calibration images (64 images of clinic), cutoff cross-fitted 10-fold"
    assert "these images chose the cutoff" in row.note
    assert row.sensitivity is not None
    assert row.specificity is not None
    assert row.accuracy.count == row.sensitivity.count + row.specificity.count
    assert (row.accuracy.n, row.sensitivity.n, row.auroc) == (64, 32, 1)
    assert card.review_error_bound is not None
    assert card.review_error_bound.attained <= card.review_error_bound.error_bound
    assert card.review_margin_logits == 0


def test_a_calibrated_version_is_calibrated_again(
    calibrated: Store, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chain names its last link, says once where the cutoff is from, and never overwrites."""
    words = ("--version", "1.0.2", "--rule", "high", "--error-bound", "0.1")
    calibrate(site / "manifest.csv", calibrated.root, *words, model="clinic/1.0.1")
    card = calibrated.load("clinic/1.0.2").card
    assert card.calibrated_from == "clinic/1.0.1"
    assert card.threshold == card.plateau.high
    assert sum(sentence.startswith(FITTED_ON) for sentence in card.limitations) == 1
    told = capsys.readouterr().out
    assert "the old one lies within the plateau: no change was needed" in told
    for words_of_it in ("expected calibration error", "optimistic", "published clinic/1.0.2"):
        assert words_of_it in told


def test_the_report_tells_old_and_new_apart(
    site: Path, tmp_path: Path, version: ModelVersion
) -> None:
    """Cutoffs and bands are those of the two cards; errors are counted, the new ones by folds."""
    words = ("--version", "1.0.1", "--name", "clinic", "--report", str(tmp_path / "report.json"))
    calibrate(site / "manifest.csv", tmp_path / "store", *words)
    report = SiteReport.model_validate_json((tmp_path / "report.json").read_text())
    new, old = Store(tmp_path / "store").load("clinic/1.0.1").card, version.card
    for side, card in ((report.before, old), (report.after, new)):
        assert side.model == f"{card.name}/{card.version}"
        assert side.view.cutoff == card.threshold
        assert side.view.band == card.review_band
        heads = {"chest": card.heads.chest, "inverted": card.heads.inverted}
        found = {name: side.heads[name].cutoff for name, own in heads.items() if own}
        assert found == {name: own.threshold for name, own in heads.items() if own}
        assert side.errors.count == side.frontal_errors.count + side.lateral_errors.count
    pfi = np.load(site / "pfi.npy")
    wrong = (pfi >= old.threshold) != (pfi > np.median(pfi))
    assert (report.before.errors.count, report.before.errors.n) == (wrong.sum(), IMAGES)
    assert report.change_needed == bool(wrong.any())
    (row,) = new.evaluations
    assert report.after.errors.count == IMAGES - row.accuracy.count
    low, high = report.after.errors.ci95
    assert (low, high) == pytest.approx((1 - row.accuracy.ci95[1], 1 - row.accuracy.ci95[0]))
    assert new.review_error_bound is not None
    assert report.attained == new.review_error_bound.attained


def test_a_report_that_cannot_be_written_publishes_nothing(site: Path, tmp_path: Path) -> None:
    """It is known before any image is read."""
    words = ("--version", "1.0.1", "--report", str(tmp_path / "none" / "report.json"))
    with pytest.raises(ValueError, match=r"--report: .*none is no folder"):
        calibrate(site / "manifest.csv", tmp_path / "store", *words)
    assert not list(tmp_path.iterdir())


WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "onnx", "jinja2", "matplotlib"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, NotInstalled())
from training.__main__ import main
sys.exit(main())
"""


def test_a_site_calibrates_without_torch(site: Path, tmp_path: Path) -> None:
    """The command runs with the extra `calibration` only; another one says what it needs."""
    words = ["googlenet/1.1.0", "--manifest", str(site / "manifest.csv"), "--images", str(site)]
    own = ["--version", "1.0.1", "--name", "clinic", "--store", str(tmp_path)]
    run = [sys.executable, "-c", WITHOUT]
    subprocess.run([*run, "calibrate", *words, *own], check=True, cwd=ROOT, capture_output=True)
    assert Store(tmp_path).load("clinic/1.0.1").card.calibrated_from == "googlenet/1.1.0"
    refused = subprocess.run(
        [*run, "fit", str(tmp_path)], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "install the extra `training`; without it, there are manifest" in refused.stderr


@pytest.mark.parametrize(
    ("frontal", "columns", "words", "message"),
    [
        ([0, 1] * 24, {}, (), r"needs 50 labelled images, .* 48: 24 frontal images of 24 pat"),
        ([0] * 9 + [1] * 51, {}, (), "51 frontal images of 51 patients and 9 lateral images of 9"),
        ([0, 1] * 30, {"patient_id": "one"}, (), "30 frontal images of 1 patients"),
        ([0, 1] * 25, {}, (), "needs 59 images"),
        ([0, 1] * 30, {}, ("--error-bound", "0"), "between 0 and 1"),
        ([0, 1] * 30, {}, (), "answers furthest from the cutoff are wrong"),
    ],
    ids=["images", "laterals", "patients", "bound", "no bound", "labels"],
)
def test_what_cannot_be_calibrated_leaves_nothing(
    site: Path,
    tmp_path: Path,
    frontal: list[int],
    columns: dict[str, str],
    words: tuple[str, ...],
    message: str,
) -> None:
    """Too few of anything is refused with the numbers; no version is written."""
    manifest = site / f"{tmp_path.name}.csv"
    write_manifest(manifest, frontal, **columns)
    with pytest.raises(ValueError, match=message):
        calibrate(manifest, tmp_path, "--version", "1.0.1", *words)
    assert not list(tmp_path.iterdir())


def test_a_missing_image_is_the_manifests_problem(site: Path, tmp_path: Path) -> None:
    """It is named."""
    manifest = site / "longer.csv"
    write_manifest(manifest, [0, 1] * (IMAGES // 2 + 1))
    with pytest.raises(ManifestError, match=f"{IMAGES}.png is missing"):
        calibrate(manifest, tmp_path, "--version", "1.0.1")


def test_missing_images_of_all_kinds_are_named_at_once(tmp_path: Path) -> None:
    """Radiographs and others, so that a site mends its manifest once."""
    manifest, store = tmp_path / "manifest.csv", tmp_path / "store"
    write_manifest(manifest, [0, 1] * 30)
    with manifest.open("a") as file:
        file.write("hand.png,not_chest,p60,clinic\n")
    with pytest.raises(ManifestError) as raised:
        calibrate(manifest, store, "--version", "9.0.0", model=DEFAULT_MODEL)
    names = [*(f"{number}.png" for number in range(60)), "hand.png"]
    assert [each.split(": ")[1] for each in raised.value.problems] == [
        f"{name} is missing" for name in names
    ]


def test_the_band_holds_what_no_image_was_near() -> None:
    """Between the plateau's ends no image lies, so the band grows and nothing counted changes."""
    pfi = np.array([0.1] * 60 + [0.9] * 60, dtype=np.float32)
    labels = np.array([0] * 60 + [1] * 60)
    plateau = youden_plateau(pfi, labels, "images")
    review = review_band_for(pfi, labels, 0.5, 0.05, measured_on="images")
    assert review.band.low == pytest.approx(0.5)
    grown = with_plateau(review, plateau)
    assert 0.1 < grown.band.low < 0.1001
    assert 0.8999 < grown.band.high < 0.9
    outside = (pfi < grown.band.low) | (pfi > grown.band.high)
    assert outside.sum() == grown.coverage.count == review.coverage.count
    assert grown.attained == review.attained
    assert with_plateau(grown, plateau) == grown
