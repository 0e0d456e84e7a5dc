"""An example of everything a study finds: with errors, or without a single one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from model_store import Evaluation, Interval, Plateau, Proportion
from training.augmentation.figure6 import FIGURE_6
from training.data.manifest import Row
from training.evaluate.baseline import HALF
from training.evaluate.cutoff import NEAREST, Rule, choose_threshold
from training.evaluate.metrics import OperatingPoint, Pfi, evaluate, proportion
from training.study.config import Data, Publish, Study
from training.study.results import (
    Assessed,
    Calibration,
    Candidate,
    Curve,
    FlowStep,
    LeakageRow,
    Method,
    Pretraining,
    ReliabilityBin,
    Results,
    ReviewBand,
    Speed,
    TestImage,
    Verdict,
)
from training.study.statistics import pooled_comparisons

TITLE = "Frontal or lateral: nine GoogLeNets on open chest radiographs"
CHILDREN = 106  # the first is the image itself
WEAKER = 0.985  # what a transformation leaves of a PFI's distance from 0.5
VALIDATION = 185 * CHILDREN
PRETRAINING: dict[Pretraining, int] = {
    "colour": 1_281_167,
    "full-greyscale": 120_000,
    "subset-greyscale": 24_000,
}
METHODS: dict[Method, int] = {"fc-originals": 0, "fc-augmented": 160, "all-augmented": 171}


def example(*, perfect: bool = False) -> Results:
    """A study of 184 test images from three sources, one of which holds frontal images only.

    Args:
        perfect: Every answer of the network is right and a version came of it; otherwise there are
            errors of both kinds and none came.
    """
    rows, pfi = test_rows(), test_pfi(perfect=perfect)
    plateau = example_plateau()
    candidates = tuple(
        candidate(kind, method, perfect=perfect) for kind in PRETRAINING for method in METHODS
    )
    return Results(
        title=TITLE,
        created="2026-11-23T04:27:00Z",
        command="python -m training study runs/paper --config paper.toml",
        config=Study(
            title=TITLE,
            data=Data(manifest="manifest.csv", images="images.zip", weights="colour.npz"),
            publish=Publish(
                when="as good",
                incumbent="googlenet/1.0.0",
                version="1.1.0",
                probe=Path("probe.png"),
            ),
        ).model_dump(mode="json"),
        environment={"python": "3.12.3", "torch": "2.8.0", "cpu": "AMD EPYC, 2 cores"},
        data={"manifest.csv": "ab" * 32, "images.zip": "cd" * 32},
        kappa=None if perfect else "0.981 of 925 images (917 agree)",
        flow=example_flow(),
        children=CHILDREN,
        candidates=candidates,
        comparisons=pooled_comparisons(candidates),
        chosen="full-greyscale, all-augmented",
        plateau=plateau,
        curves=(curve(plateau.measured_on, 0.02), curve("test images, for comparison", 0.0)),
        calibration=calibration(),
        review=ReviewBand(
            band=Interval(low=0.1, high=0.9),
            error_bound=0.01,
            confidence=0.95,
            attained=0.0078,
            measured_on="validation images",
            images=185,
            coverage=proportion(178, 185),
        ),
        assessed=tuple(assessed(rule, rows, pfi, plateau) for rule in ("middle", "high")),
        baselines=baselines(rows, pfi),
        window=(
            named("min-max window, frozen features", rows, pfi),
            named("percentiles 0.5 to 99.5, frozen features", rows, pfi),
        ),
        leakage=leakage(),
        leakage_text="By split: by image 99.86%; by patient 98.70%, 1.17 points apart.",
        incumbent="googlenet/1.0.0",
        verdicts=verdicts(perfect=perfect),
        published="googlenet-paper/1.1.0" if perfect else None,
        test_images=tuple(
            test_image(row, float(value)) for row, value in zip(rows, pfi, strict=True)
        ),
        speed=Speed(
            training_images_per_second=23.9,
            loading_share=0.041,
            test_images_per_second=38.2,
            device="cpu, AMD EPYC, 2 cores",
            world_size=1,
        ),
    )


def test_rows() -> list[Row]:
    """162 frontal images and 22 lateral ones; up to three images a patient."""
    views = ["frontal"] * 112 + ["lateral"] * 11 + ["frontal"] * 11 + ["lateral"] * 11
    views += ["frontal"] * 39
    sources = ["covid-chestxray"] * 123 + ["clinic"] * 22 + ["kermany-paediatric"] * 39
    return [
        Row(
            file=f"{source}/{number:04}.png",
            view="frontal" if view == "frontal" else "lateral",
            patient_id=f"{source}-{number // 3}",
            source=source,
            licence="CC BY 4.0",
            origin=f"example.org/{source}",
        )
        for number, (view, source) in enumerate(zip(views, sources, strict=True))
    ]


def test_pfi(*, perfect: bool) -> Pfi:
    """(184,) PFIs, clustered near 0 and 1; if not perfect, four on the wrong side."""
    noise = np.random.default_rng(1).normal(7, 1.7, 184).clip(4)
    truth = np.array([row.view == "frontal" for row in test_rows()])
    if not perfect:
        noise[[3, 40, 113, 140]] = (-1.2, 0.4, -2.5, -0.7)
    values = 1 / (1 + np.exp(-np.where(truth, noise, -noise)))
    return np.asarray(values.clip(NEAREST, 1 - NEAREST), np.float32)


def test_image(row: Row, pfi: float) -> TestImage:
    """The image with four PFIs a little less certain than its own."""
    return TestImage(
        file=row.file,
        source=row.source,
        patient_id=row.patient_id,
        licence=row.licence,
        origin=row.origin,
        view=row.view,
        pfi=pfi,
        transformed=dict.fromkeys(FIGURE_6, 0.5 + (pfi - 0.5) * WEAKER),
    )


for helper in (test_rows, test_pfi, test_image):
    helper.__test__ = False  # type: ignore[attr-defined]  # names that pytest would collect


def example_plateau() -> Plateau:
    """Plateau of a validation set with some errors."""
    return Plateau(
        low=0.381,
        high=0.9713,
        youden_j=0.9782,
        measured_on=f"validation images, {CHILDREN} children of each",
        images=VALIDATION,
    )


def example_flow() -> tuple[FlowStep, ...]:
    """All seven steps, two of them with exclusions."""
    duplicates = {"unreadable": 3, "exact duplicate under another name": 1}
    reasons = {"oblique": 12, "CT slice, or another modality": 84}
    return (
        FlowStep(name="listed", images=1025, patients=600),
        FlowStep(
            name="read", images=925, patients=570, frontal=815, lateral=110,
            excluded=reasons | duplicates,
        ),
        FlowStep(name="train", images=556, patients=342, frontal=490, lateral=66),
        FlowStep(name="validation", images=185, patients=114, frontal=163, lateral=22),
        FlowStep(name="test", images=184, patients=114, frontal=162, lateral=22),
        FlowStep(name="train with children", images=556 * CHILDREN),
        FlowStep(name="validation with children", images=VALIDATION),
    )  # fmt: skip


def candidate(kind: Pretraining, method: Method, *, perfect: bool) -> Candidate:
    """One of the nine; of a perfect study, all right."""
    wrong = 0 if perfect else 260 - METHODS[method] - 30 * (kind == "full-greyscale")
    slow = 23.9 if method == "all-augmented" else 410.0
    return Candidate(
        name=f"{kind}, {method}",
        pretraining=kind,
        method=method,
        pretraining_images=PRETRAINING[kind],
        accuracy=proportion(VALIDATION - wrong, VALIDATION),
        accuracy_originals=proportion(185 - wrong // 100, 185),
        loss=0.0021 + wrong / 1e4,
        training_images=36_000,
        seconds=36_000 / slow,
        images_per_second=slow,
    )


def curve(measured_on: str, dip: float) -> Curve:
    """A curve that rises at once, stays, and falls towards 1."""
    cutoffs = np.linspace(0, 1, 1001)
    j = 0.99 - dip - 0.6 * cutoffs**150 - 0.5 * (1 - cutoffs) ** 40
    return Curve(measured_on=measured_on, cutoffs=tuple(cutoffs), youden_j=tuple(j))


def calibration() -> Calibration:
    """Four bins before, three after."""

    def bins(*found: tuple[float, int, int]) -> tuple[ReliabilityBin, ...]:
        return tuple(
            ReliabilityBin(
                low=low, high=low + 0.1, images=n, mean_pfi=low + 0.04, frontal=proportion(count, n)
            )
            for low, count, n in found
        )

    return Calibration(
        temperature=1.318,
        ece_before=0.0121,
        ece_after=0.0087,
        ece_grid_before=0.0204,
        ece_grid_after=0.0243,
        reliability_before=bins((0.0, 2, 80), (0.2, 3, 9), (0.6, 8, 11), (0.9, 632, 636)),
        reliability_after=bins((0.0, 3, 84), (0.5, 9, 15), (0.9, 630, 637)),
    )


def assessed(rule: Rule, rows: list[Row], pfi: Pfi, plateau: Plateau) -> Assessed:
    """The pooled row, the sources, Figure 6 and another source."""
    threshold = choose_threshold(plateau, rule)
    point = OperatingPoint(threshold, Interval(low=0.1, high=max(0.9, threshold)))
    found = [evaluate("test", pfi, rows, point)]
    for source in ("clinic", "covid-chestxray", "kermany-paediatric"):
        own = np.array([row.source == source for row in rows])
        part = [row for row in rows if row.source == source]
        found.append(evaluate(f"test: {source}", pfi[own], part, point))
    weaker = np.asarray(0.5 + (pfi - 0.5) * WEAKER, np.float32)
    note = "all transformations of each image; the interval takes them for independent"
    grid = np.concatenate([weaker] * len(FIGURE_6))
    found.append(evaluate("test, Figure 6 grid", grid, rows * len(FIGURE_6), point, note))
    found += [evaluate(f"test, Figure 6: {name}", weaker, rows, point) for name in FIGURE_6]
    return Assessed(rule=rule, threshold=threshold, evaluations=tuple(found))


def named(name: str, rows: list[Row], pfi: Pfi, note: str = "") -> Evaluation:
    """The same images by another method, with a few images more wrong."""
    other = pfi.copy()
    other[5:9] = 0.2
    return evaluate(name, other, rows, HALF, note)


def baselines(rows: list[Row], pfi: Pfi) -> tuple[Evaluation, ...]:
    """Two learnt ones, and the header of few images."""
    header = named("header ViewPosition", rows[:60], pfi[:60], "60 of 184 images have one")
    return (
        named("frozen features + logistic regression", rows, pfi),
        named("profiles + SVM", rows, pfi),
        header.model_copy(update={"auroc": None, "specificity": None}),
    )


def leakage() -> tuple[LeakageRow, ...]:
    """Two rows a question."""

    def row(question: str, setting: str, share: Proportion, auroc: float | None) -> LeakageRow:
        return LeakageRow(
            question=question, setting=setting, model="frozen features, 20 splits", n=share.n,
            accuracy=share.value, ci95=share.ci95, ci_method="Clopper-Pearson", auroc=auroc,
        )  # fmt: skip

    return (
        row("split", "by image", proportion(3675, 3680), 0.99991),
        row("split", "by patient", proportion(3632, 3680), 0.9987),
        row("cutoff", "chosen on validation images", proportion(182, 184), 0.9991),
        row("cutoff", "chosen on the test images themselves", proportion(184, 184), 0.9991),
        row("source", "another than those trained on", proportion(615, 649), None),
    )


def verdicts(*, perfect: bool) -> tuple[Verdict, ...]:
    """Three rows against the published version's; one is worse unless all is perfect."""

    def row(
        name: str, images: int, measure: Literal["accuracy", "AUROC"], ours: float, published: float
    ) -> Verdict:
        ours = 1.0 if perfect else ours
        return Verdict(
            row=name, ours=ours, published=published, images=images, measure=measure,
            as_good=ours >= published,
        )  # fmt: skip

    return (
        row("test", 184, "accuracy", 181 / 184, 1.0),
        row("test", 184, "AUROC", 0.99888, 0.9983),
        row("test, Figure 6 grid", 736, "accuracy", 724 / 736, 723 / 736),
    )
