"""From PFIs to the rows of a report: proportions with exact confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from model_store import Evaluation, Interval, Proportion
from training.data.manifest import Row

Pfi = npt.NDArray[np.float32]  # (N,)
Predict = Callable[[npt.NDArray[np.uint8]], Pfi]  # (N, 1, S, S) -> (N,)
SERVING_BATCH = 8  # images of one ONNX Runtime call


class OperatingPoint(NamedTuple):
    """How PFIs are read: frontal from the threshold on, for review within the band."""

    threshold: float
    band: Interval


def balanced_loss(pfi: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> float:
    """Cross-entropy in which both views weigh the same, whatever their numbers."""
    p, y = pfi.astype(np.float64), labels
    surprise = -np.log(np.where(y == 1, p, 1 - p).clip(1e-7, 1))
    return float((surprise[y == 1].mean() + surprise[y == 0].mean()) / 2)


def in_batches(run: Predict, tensors: npt.NDArray[np.uint8]) -> Pfi:
    """(N, 1, S, S) -> (N,) PFI by a network that takes a few images a call, as in serving."""
    starts = tqdm(range(0, len(tensors), SERVING_BATCH), "classify", unit="batch", leave=False)
    return np.concatenate([run(tensors[start : start + SERVING_BATCH]) for start in starts])


def sources_of(rows: Sequence[Row]) -> list[str]:
    """Where the images are from, in order of name."""
    return sorted({row.source for row in rows})


def proportion(count: int, n: int) -> Proportion:
    """`count` of `n` with its Clopper-Pearson 95 % confidence interval; of nothing, 0 (0 to 1)."""
    if n == 0:
        return Proportion(count=0, n=0, value=0.0, ci95=(0.0, 1.0))
    interval = binomtest(count, n).proportion_ci(0.95, method="exact")
    bounds = (float(interval.low), float(interval.high))
    return Proportion(count=count, n=n, value=count / n, ci95=bounds)


def evaluate(
    name: str, pfi: Pfi, rows: Sequence[Row], point: OperatingPoint, note: str = ""
) -> Evaluation:
    """One row of the report, frontal being the positive class."""
    truth = np.array([row.view == "frontal" for row in rows])
    called = pfi >= point.threshold
    correct = called == truth
    reviewed = (pfi >= point.band.low) & (pfi <= point.band.high)
    frontal, lateral = int(truth.sum()), int((~truth).sum())
    return Evaluation(
        name=name,
        images=len(rows),
        patients=len({row.patient_id for row in rows}),
        accuracy=proportion(int(correct.sum()), len(rows)),
        sensitivity=proportion(int(correct[truth].sum()), frontal) if frontal else None,
        specificity=proportion(int(correct[~truth].sum()), lateral) if lateral else None,
        auroc=float(roc_auc_score(truth, pfi)) if frontal and lateral else None,
        review=proportion(int(reviewed.sum()), len(rows)),
        note=note,
    )


def by_source(name: str, pfi: Pfi, rows: Sequence[Row], point: OperatingPoint) -> list[Evaluation]:
    """The pooled row, then one row a source."""
    report = [evaluate(name, pfi, rows, point)]
    for source in sources_of(rows):
        own = np.array([row.source == source for row in rows])
        part = [row for row in rows if row.source == source]
        report.append(evaluate(f"{name}: {source}", pfi[own], part, point))
    return report


def as_table(report: Sequence[Evaluation]) -> str:
    """The report as a Markdown table, as it stands in documents."""
    lines = [
        "| set | n | right | accuracy (95 % CI) | sensitivity | specificity | AUROC | review |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report:
        low, high = row.accuracy.ci95
        cells = (
            row.name,
            f"{row.images}",
            f"{row.accuracy.count}",
            f"{row.accuracy.value:.2%} ({low:.2%} to {high:.2%})",
            f"{row.sensitivity.value:.2%}" if row.sensitivity else "",
            f"{row.specificity.value:.2%}" if row.specificity else "",
            f"{row.auroc:.5f}" if row.auroc is not None else "",
            f"{row.review.value:.1%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
