"""How far a figure depends on how it is measured: split, cutoff, interval, source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from model_store import Evaluation
from training.data.split import By
from training.evaluate.cutoff import choose_threshold, youden_plateau
from training.evaluate.metrics import Pfi, evaluate, proportion
from training.study.assess import Reading, Tested
from training.study.config import Study
from training.study.data import Indices, Radiographs, only_source, resplit
from training.study.frozen import Features, fit_head
from training.study.results import LeakageRow
from training.study.statistics import bootstrap, clustered_bootstrap
from training.train.evaluation_rows import mixed_sources

CHOSEN = "chosen candidate"
QUESTIONS = {  # and how the paragraph about each begins
    "split": "Accuracy by the unit of the split",
    "cutoff": "By the images that chose the cutoff",
    "source": "By the source of the test images",
}
SETS = ("test images", "Figure 6 grid")
EXACT = "Clopper-Pearson"


@dataclass(frozen=True)
class Repeat:
    """One random split on frozen features: test PFIs, and both cutoffs."""

    right: int
    right_by_own_cutoff: int
    n: int
    auroc: float | None


def frozen_rows(study: Study, radiographs: Radiographs, every: Features) -> list[LeakageRow]:
    """Many random splits with a classifier on frozen features: cheap, so the spread is seen."""
    originals = every.originals()
    seeds = range(study.seed * 1000, study.seed * 1000 + study.assess.leakage_repeats)
    by: dict[By, list[Repeat]] = {
        unit: [
            _repeat(study, resplit(study, radiographs, seed, unit), originals, seed)
            for seed in seeds
        ]
        for unit in ("image", "patient")
    }
    rows = [_row("split", f"by {unit}", repeats) for unit, repeats in by.items()]
    rows.append(_row("cutoff", "from validation", by["patient"]))
    rows.append(_row("cutoff", "from test", by["patient"], own_cutoff=True))
    rows.append(_row("source", "random patients", by["patient"]))
    for source in mixed_sources(radiographs.rows):
        crossed = [
            _repeat(study, only_source(study, radiographs, source, seed), originals, seed, source)
            for seed in seeds
        ]
        rows.append(_row("source", f"fit on {source}, test on others", crossed))
    return rows


def _repeat(
    study: Study, radiographs: Radiographs, originals: Features, seed: int, source: str = ""
) -> Repeat:
    train, validation = (
        originals.of_images(radiographs.of(part)) for part in ("train", "validation")
    )
    head = fit_head(radiographs, train, validation, study.finetune, seed)
    at = held_out(radiographs, source)
    pfi, labels = head.pfi(originals.of_images(at).values), radiographs.labels[at]
    chosen = head.pfi(validation.values), validation.labels.numpy()
    own = _right(pfi, labels, pfi, labels) if 0 < labels.sum() < len(labels) else 0
    auroc = float(roc_auc_score(labels, pfi)) if 0 < labels.sum() < len(labels) else None
    return Repeat(_right(pfi, labels, *chosen), own, len(at), auroc)


def held_out(radiographs: Radiographs, fitted_on: str = "") -> Indices:
    """The test images; of a source's test, those of the other sources that hold both views."""
    at = radiographs.of("test")
    others = [s for s in mixed_sources(radiographs.rows) if s != fitted_on]
    wanted = [i for i in at if not fitted_on or radiographs.rows[i].source in others]
    return np.array(wanted, dtype=np.int64)


def _right(
    pfi: Pfi, labels: npt.NDArray[np.int64], cutoff_pfi: Pfi, cutoff_labels: npt.NDArray[np.int64]
) -> int:
    plateau = youden_plateau(cutoff_pfi, cutoff_labels, "")
    return int(((pfi >= choose_threshold(plateau, "middle")) == labels).sum())


def _row(
    question: str, setting: str, repeats: Sequence[Repeat], *, own_cutoff: bool = False
) -> LeakageRow:
    shares = np.array([(r.right_by_own_cutoff if own_cutoff else r.right) / r.n for r in repeats])
    aurocs = [r.auroc for r in repeats if r.auroc is not None]
    half = 0.0
    if len(shares) > 1:
        half = float(student.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / len(shares) ** 0.5)
    mean = float(shares.mean())
    return LeakageRow(
        question=question,
        setting=setting,
        model=f"frozen features, {len(repeats)} random splits",
        n=sum(r.n for r in repeats),
        accuracy=mean,
        ci95=(max(0.0, mean - half), min(1.0, mean + half)),
        ci_method="t of the mean over splits",
        auroc=float(np.mean(aurocs)) if aurocs else None,
    )


def chosen_rows(
    study: Study,
    tested: Tested,
    reading: Reading,
    by_image: Evaluation | None,
    crossed: Sequence[Evaluation],
) -> list[LeakageRow]:
    """The chosen candidate itself, measured in each way."""
    point = reading.point(study.assess.rule)
    own = evaluate("by patient", tested.pfi, tested.rows, point)
    rows = [_exact("split", "by patient", own)]
    if by_image:
        rows.append(_exact("split", "by image", by_image, "trained anew"))
    labels = tested.labels
    rows.append(_exact("cutoff", "from validation", own))
    if 0 < labels.sum() < len(labels):
        right = proportion(_right(tested.pfi, labels, tested.pfi, labels), len(labels))
        rows.append(_exact("cutoff", "from test", own.model_copy(update={"accuracy": right})))
    rows += _intervals(study, tested, point.threshold)
    rows.append(_exact("source", "random patients", own))
    return rows + [_exact("source", each.name, each, "trained anew") for each in crossed]


def _exact(question: str, setting: str, found: Evaluation, note: str = "") -> LeakageRow:
    return LeakageRow(
        question=question,
        setting=setting,
        model=CHOSEN,
        n=found.images,
        accuracy=found.accuracy.value,
        ci95=found.accuracy.ci95,
        ci_method=EXACT,
        auroc=found.auroc,
        note=note,
    )


def _intervals(study: Study, tested: Tested, threshold: float) -> list[LeakageRow]:
    """Three intervals of one figure, for test images and for the Figure 6 grid of them."""
    truth = tested.labels
    patients = np.array([row.patient_id for row in tested.rows])
    sets = {SETS[0]: ((tested.pfi >= threshold) == truth, patients)}
    grid = np.concatenate(list(tested.transformed.values()))
    times = len(tested.transformed)
    sets[SETS[1]] = (
        (grid >= threshold) == np.tile(truth, times),
        np.tile(patients, times),
    )
    rows = []
    for name, (right, clusters) in sets.items():
        values, repeats = right.astype(np.float64), study.assess.bootstrap_repeats
        ends = {
            f"{EXACT}, images as independent": proportion(int(right.sum()), len(right)).ci95,
            "bootstrap of images": bootstrap(values, study.seed, repeats),
            "bootstrap of patients": clustered_bootstrap(values, clusters, study.seed, repeats),
        }
        rows += [
            LeakageRow(
                question="interval",
                setting=f"{name}: {method}",
                model=CHOSEN,
                n=len(right),
                accuracy=float(right.mean()),
                ci95=interval,
                ci_method=method,
                auroc=None,
                note="no width: every answer was right" if right.all() and "boot" in method else "",
            )
            for method, interval in ends.items()
        ]
    return rows


def in_words(rows: Sequence[LeakageRow]) -> str:
    """One paragraph: what each way of measuring says of the same model."""
    said = []
    for question, start in QUESTIONS.items():
        own = [row for row in rows if row.question == question]
        of_model = [
            f"{model}, "
            + ", ".join(f"{row.setting} {row.accuracy:.2%}" for row in own if row.model == model)
            for model in dict.fromkeys(row.model for row in own)
        ]
        said.append(f"{start}: {'; '.join(of_model)}.")
    for name in SETS:
        own = [row for row in rows if row.question == "interval" and row.setting.startswith(name)]
        ends = "; ".join(f"{r.ci_method}, {r.ci95[0]:.2%} to {r.ci95[1]:.2%}" for r in own)
        said.append(f"The 95 % interval of {own[0].accuracy:.2%} on the {name}: {ends}.")
    return " ".join(said)


def in_order(rows: Sequence[LeakageRow]) -> list[LeakageRow]:
    """Rows of one question together, the candidate's first."""
    order = [*QUESTIONS, "interval"]
    return sorted(rows, key=lambda row: order.index(row.question))
