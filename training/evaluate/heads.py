"""What a network of several heads answers, its cutoffs, and the rows of its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from model_store import (
    ROTATIONS,
    HeadCutoff,
    HeadEvaluation,
    Heads,
    PreprocessSpec,
    Task,
)
from training.augmentation.image_files import Transformed, transformed
from training.augmentation.pieces import PIECES
from training.data.manifest import Row, read_images, views_of
from training.evaluate.calibration import expected_calibration_error
from training.evaluate.cutoff import chest_cutoff, choose_threshold, review_band, youden_plateau
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


class HeadImages(NamedTuple):
    """Images that all heads are asked about."""

    rows: Sequence[Row]  # (N,)
    tensors: Tensors  # (N, 1, S, S)
    pieces: Transformed  # of the radiographs among them, of which `chest` is asked as well

    @classmethod
    def read(cls, rows: Sequence[Row], images: Path, spec: PreprocessSpec) -> Self:
        """The images of these rows, from a zip or a folder.

        Raises:
            ManifestError: An image cannot be used.
        """
        tensors = read_images(rows, images, spec).tensors
        return cls(rows, tensors, transformed(views_of(rows), images, spec, *PIECES))


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
    shown: HeadImages,
    margin_logits: float,
    images: str = "validation images",
) -> Heads:
    """Choose the cutoffs of all heads beside that of the view.

    Args:
        predict: Of the network.
        shown: Validation images; upright radiographs answer for orientation, all for `chest`.
        margin_logits: Review bands reach at least so far to both sides of the threshold.
        images: What they are, for the card.

    Returns:
        The cutoffs; that of `chest` only where some images are not_chest.
    """
    moved = predict_oriented(predict, shown.tensors, shown.rows)
    outputs = moved.outputs
    radiograph = np.array([row.view != "not_chest" for row in moved.rows])
    upright = radiograph & np.array([row.is_upright for row in moved.rows])
    frontal = upright & np.array([row.view == "frontal" for row in moved.rows])
    where = f"{len(shown.rows)} {images}, each turned, mirrored and inverted in all 16 ways"

    asked: dict[Task, npt.NDArray[np.bool_]] = {"inverted": upright, "mirrored": frontal}
    cutoffs = {
        task: _youden_cutoff(outputs[task][of], moved.answers[task][of], margin_logits, where)
        for task, of in asked.items()
        if task in outputs
    }
    if "chest" in outputs and not radiograph.all():
        of_pieces = predict(shown.pieces.tensors)["chest"]
        cutoffs["chest"] = chest_cutoff(
            outputs["chest"], radiograph, of_pieces, margin_logits, where
        )
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
    name: str, predict: PredictHeads, shown: HeadImages, heads: Heads
) -> list[HeadEvaluation]:
    """What all heads beside that of the view are worth: pooled, and by source.

    Args:
        name: Of the set.
        predict: Of the network.
        shown: `chest` is asked of all as they are, and of the pieces; orientation of upright
            radiographs, in all 16 ways to lie.
        heads: Their cutoffs, fixed before.
    """
    rows, tensors, pieces = shown
    report = list[HeadEvaluation]()
    if heads.chest is not None:
        truth = np.array([row.view != "not_chest" for row in rows]).astype(np.int64)
        asked = Asked("chest", predict(tensors)["chest"], truth, rows)
        report += _by_source(name, asked, heads.chest)
        if pieces.rows:
            report.append(_row_of_pieces(name, predict, pieces, heads.chest))
    at = [i for i, row in enumerate(rows) if row.view != "not_chest" and row.is_upright]
    if not at:
        return report
    moved = predict_oriented(predict, tensors[at], [rows[i] for i in at])
    frontal = np.array([row.view == "frontal" for row in moved.rows])
    cutoffs: dict[Task, HeadCutoff | None] = {
        "rotation": None,
        "inverted": heads.inverted,
        "mirrored": heads.mirrored,
    }
    for task, cutoff in cutoffs.items():
        if task in moved.outputs:
            asked = Asked(task, moved.outputs[task], moved.answers[task], moved.rows)
            asked = asked.only(frontal) if task == "mirrored" else asked
            report += _by_source(name, asked, cutoff) if asked.rows else []
    return report


def _row_of_pieces(
    name: str, predict: PredictHeads, pieces: Transformed, cutoff: HeadCutoff
) -> HeadEvaluation:
    chest = predict(pieces.tensors)["chest"]
    truth = np.ones(len(chest), np.int64)
    row = _row(f"{name}: halves and quarters", Asked("chest", chest, truth, pieces.rows), cutoff)
    unmarked = (chest < cutoff.review_band.low).mean()
    note = f"four halves and four quarters of each; {unmarked:.1%} not_chest without a mark"
    return row.model_copy(update={"note": note})


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
        *("AUROC", "calibration error", "review", "note"),
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
            row.note,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
