"""What a network of several heads answers, its cutoffs, and the rows of its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from model_store import (
    ROTATIONS,
    HeadCutoff,
    HeadEvaluation,
    Heads,
    Interval,
    Task,
)
from training.data.manifest import Row
from training.evaluate.calibration import expected_calibration_error
from training.evaluate.cutoff import choose_threshold, logit, review_band, sigmoid, youden_plateau
from training.evaluate.metrics import proportion, sources_of

Outputs = dict[str, npt.NDArray[np.float32]]  # (N,) by output; rotation (N, 4); no evidence
Tensors = npt.NDArray[np.uint8]  # (N, 1, S, S)
PredictHeads = Callable[[Tensors], Outputs]
CLASSES: dict[Task, tuple[str, ...]] = {
    "chest": ("not_chest", "chest"),
    "rotation": tuple(map(str, ROTATIONS)),
    "inverted": ("usual", "inverted"),
    "mirrored": ("usual", "mirrored"),
}
# Of chest radiographs, on validation images in all 16 ways to lie, so many may be called not_chest
# at most; as they are, fewer. What is flagged wrongly is lost to who looks for chests; a hand that
# is let through can be found later
FLAGGED_CHESTS = 5e-3


def oriented(
    tensors: npt.NDArray[np.uint8],
) -> Iterator[tuple[npt.NDArray[np.uint8], dict[Task, int]]]:
    """All images in each of the 16 ways to lie, with what the heads should answer.

    Args:
        tensors: (N, 1, S, S), upright.

    Yields:
        (N, 1, S, S), and the answers of rotation, inverted and mirrored.
    """
    for quarters in range(4):
        for mirrored in range(2):
            moved = tensors[..., ::-1] if mirrored else tensors
            # counter-clockwise, so that as many quarters clockwise undo it
            moved = np.ascontiguousarray(np.rot90(moved, quarters, axes=(2, 3)))
            for inverted in range(2):
                answers: dict[Task, int] = {
                    "rotation": quarters,
                    "mirrored": mirrored,
                    "inverted": inverted,
                }
                yield (255 - moved if inverted else moved), answers


class Oriented(NamedTuple):
    """Probabilities of images that were shown in all 16 ways to lie."""

    outputs: Outputs  # of 16 N images
    answers: dict[Task, npt.NDArray[np.int64]]  # (16 N,)
    rows: list[Row]  # 16 N


def predict_oriented(predict: PredictHeads, tensors: Tensors, rows: Sequence[Row]) -> Oriented:
    """Show all images in all 16 ways to lie."""
    parts, answers = list[Outputs](), list[dict[Task, int]]()
    for shown, right in oriented(tensors):
        parts.append(predict(shown))
        answers.append(right)
    return Oriented(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        {task: np.repeat([each[task] for each in answers], len(rows)) for task in answers[0]},
        list(rows) * len(parts),
    )


def fit_heads(
    predict: PredictHeads,
    tensors: Tensors,
    rows: Sequence[Row],
    margin_logits: float,
    images: str = "validation images",
) -> Heads:
    """Choose the cutoffs of all heads beside that of the view.

    Args:
        predict: Of the network.
        tensors: (N, 1, S, S), of validation images.
        rows: (N,) theirs; upright radiographs answer for orientation, all for `chest`.
        margin_logits: Review bands reach at least so far to both sides of the threshold.
        images: What they are, for the card.

    Returns:
        The cutoffs; that of `chest` only where some images are not_chest.
    """
    shown = predict_oriented(predict, tensors, rows)
    outputs = shown.outputs
    radiograph = np.array([row.view != "not_chest" for row in shown.rows])
    upright = radiograph & np.array([row.is_upright for row in shown.rows])
    frontal = upright & np.array([row.view == "frontal" for row in shown.rows])
    where = f"{len(rows)} {images}, each turned, mirrored and inverted in all 16 ways"

    asked: dict[Task, npt.NDArray[np.bool_]] = {"inverted": upright, "mirrored": frontal}
    cutoffs = {
        task: _youden_cutoff(outputs[task][of], shown.answers[task][of], margin_logits, where)
        for task, of in asked.items()
        if task in outputs
    }
    if "chest" in outputs and not radiograph.all():
        cutoffs["chest"] = chest_cutoff(outputs["chest"], radiograph, margin_logits, where)
    return Heads(rotation="rotation" in outputs, evidence=True, **cutoffs)


def _youden_cutoff(
    probability: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    margin_logits: float,
    measured_on: str,
) -> HeadCutoff:
    plateau = youden_plateau(probability, truth, measured_on)
    threshold = choose_threshold(plateau, "middle")
    return HeadCutoff(
        threshold=threshold,
        threshold_rule="middle of Youden's plateau in logits",
        plateau=plateau,
        review_band=review_band(plateau, threshold, margin_logits),
    )


def chest_cutoff(
    chest: npt.NDArray[np.float32],
    is_chest: npt.NDArray[np.bool_],
    margin_logits: float,
    measured_on: str,
) -> HeadCutoff:
    """Where an image stops being a chest radiograph.

    Args:
        chest: (N,) probabilities of a chest radiograph.
        is_chest: (N,)
        margin_logits: The review band reaches at least so far to both sides.
        measured_on: What these images are, for the card.

    Returns:
        The middle of Youden's plateau in logits, or what calls no more than FLAGGED_CHESTS of the
        chest radiographs not_chest, if that is lower.
    """
    plateau = youden_plateau(chest, is_chest.astype(np.int64), measured_on)
    lowest = float(np.quantile(chest[is_chest], FLAGGED_CHESTS, method="lower"))
    threshold = min(choose_threshold(plateau, "middle"), lowest)
    return HeadCutoff(
        threshold=threshold,
        threshold_rule="middle of Youden's plateau in logits, or lower, so that at most "
        f"{FLAGGED_CHESTS:.1%} of the chest radiographs of these images lie below it",
        plateau=plateau,
        review_band=Interval(
            low=min(threshold, sigmoid(logit(threshold) - margin_logits)),
            high=max(threshold, sigmoid(logit(threshold) + margin_logits)),
        ),
    )


class Asked(NamedTuple):
    """What one head was asked, and said."""

    task: Task
    probability: npt.NDArray[np.float32]  # (N,), or (N, 4) of rotation
    truth: npt.NDArray[np.int64]  # (N,) classes
    rows: Sequence[Row]  # (N,)

    def only(self, of: npt.NDArray[np.bool_]) -> Asked:
        """A part of the images."""
        rows = [row for row, own in zip(self.rows, of, strict=True) if own]
        return Asked(self.task, self.probability[of], self.truth[of], rows)


def head_rows(
    name: str, predict: PredictHeads, tensors: Tensors, rows: Sequence[Row], heads: Heads
) -> list[HeadEvaluation]:
    """What all heads beside that of the view are worth: pooled, and by source.

    Args:
        name: Of the set.
        predict: Of the network.
        tensors: (N, 1, S, S)
        rows: (N,) theirs. `chest` is asked of all as they are; orientation of upright radiographs,
            in all 16 ways to lie.
        heads: Their cutoffs, fixed before.
    """
    report = list[HeadEvaluation]()
    if heads.chest is not None:
        truth = np.array([row.view != "not_chest" for row in rows]).astype(np.int64)
        asked = Asked("chest", predict(tensors)["chest"], truth, rows)
        report += _by_source(name, asked, heads.chest)
    at = [i for i, row in enumerate(rows) if row.view != "not_chest" and row.is_upright]
    if not at:
        return report
    shown = predict_oriented(predict, tensors[at], [rows[i] for i in at])
    frontal = np.array([row.view == "frontal" for row in shown.rows])
    cutoffs: dict[Task, HeadCutoff | None] = {
        "rotation": None,
        "inverted": heads.inverted,
        "mirrored": heads.mirrored,
    }
    for task, cutoff in cutoffs.items():
        if task in shown.outputs:
            asked = Asked(task, shown.outputs[task], shown.answers[task], shown.rows)
            asked = asked.only(frontal) if task == "mirrored" else asked
            report += _by_source(name, asked, cutoff) if asked.rows else []
    return report


def _by_source(name: str, asked: Asked, cutoff: HeadCutoff | None) -> list[HeadEvaluation]:
    report = [_row(name, asked, cutoff)]
    for source in sources_of(asked.rows):
        own = np.array([row.source == source for row in asked.rows])
        report.append(_row(f"{name}: {source}", asked.only(own), cutoff))
    return report


def _row(name: str, asked: Asked, cutoff: HeadCutoff | None) -> HeadEvaluation:
    """One row; without a cutoff, the most probable class is the answer."""
    task, probability, truth, rows = asked
    auroc = review = calibration_error = None
    if cutoff is None:
        called = probability.argmax(axis=1)
    else:
        called = (probability >= cutoff.threshold).astype(np.int64)
        band = cutoff.review_band
        reviewed = (probability >= band.low) & (probability <= band.high)
        review = proportion(int(reviewed.sum()), len(rows))
        both = len(np.unique(truth)) == 2
        auroc = float(roc_auc_score(truth, probability)) if both else None
        calibration_error = expected_calibration_error(probability, truth)
    right = called == truth
    return HeadEvaluation(
        name=name,
        task=task,
        images=len({row.file for row in rows}),
        patients=len({row.patient_id for row in rows}),
        accuracy=proportion(int(right.sum()), len(rows)),
        by_class={
            label: proportion(int(right[truth == number].sum()), int((truth == number).sum()))
            for number, label in enumerate(CLASSES[task])
            if (truth == number).any()
        },
        auroc=auroc,
        review=review,
        calibration_error=calibration_error,
        note="" if task == "chest" else "each image in all 16 ways to lie",
    )


def as_heads_table(report: Sequence[HeadEvaluation]) -> str:
    """The rows as a Markdown table, as they stand in documents."""
    columns = (
        *("set", "head", "images", "n", "right", "accuracy (95 % CI)", "by class"),
        *("AUROC", "calibration error", "review"),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in report:
        low, high = row.accuracy.ci95
        classes = ", ".join(f"{name} {share.value:.2%}" for name, share in row.by_class.items())
        cells = (
            row.name,
            row.task,
            f"{row.images}",
            f"{row.accuracy.n}",
            f"{row.accuracy.count}",
            f"{row.accuracy.value:.2%} ({low:.2%} to {high:.2%})",
            classes,
            f"{row.auroc:.5f}" if row.auroc is not None else "",
            f"{row.calibration_error:.4f}" if row.calibration_error is not None else "",
            f"{row.review.value:.1%}" if row.review else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
