"""Training several heads at once: what each image is asked, and the loss of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.augmentation.augment import UNKNOWN, Varied
from training.data.manifest import ManifestError, Part, Row
from training.networks.googlenet import Logits
from training.networks.heads import CLASSES, NOT_ASKED, Head, by_head
from training.train.trainer import AUXILIARY_WEIGHT, Loss

# What images with an answer are, by head and label
SHOWN: dict[tuple[Head, int], str] = {
    ("view", 0): "lateral",
    ("view", 1): "frontal",
    ("chest", 0): "not_chest",
    ("chest", 1): "of the chest",
    ("rotation", 0): "upright",
    ("inverted", 0): "upright",
    ("mirrored", 0): "frontal and upright",
    ("projection", 0): "PA",
    ("projection", 1): "AP",
}
assert UNKNOWN == NOT_ASKED  # a rotation that is not known is not asked


def answers_of(rows: Sequence[Row], heads: Sequence[Head]) -> Tensor:
    """(N, len(heads)) int64: what is right for images that are upright, or NOT_ASKED.

    Which way is up, polarity and handedness are asked of images that are upright as they are.
    """
    return torch.tensor([[_answer(row, head) for head in heads] for row in rows])


def _answer(row: Row, head: Head) -> int:
    is_chest = row.view != "not_chest"
    if head == "chest":
        return int(is_chest)
    if not is_chest:
        return NOT_ASKED
    if head == "view":
        return int(row.view == "frontal")
    if head == "projection":
        return {"PA": 0, "AP": 1}.get(row.projection, NOT_ASKED)
    if not row.is_upright:
        return NOT_ASKED
    # patients stand with either side to the detector, so that no lateral is mirrored
    return NOT_ASKED if head == "mirrored" and row.view == "lateral" else 0


def refuse_unanswerable(rows: Sequence[Row], heads: Sequence[Head], part: Part) -> None:
    """Refuse heads that these images cannot teach, or whose cutoff they cannot choose.

    Raises:
        ManifestError: With all such heads.
    """
    problems, labels = [], answers_of(rows, heads)
    for column, head in enumerate(heads):
        given = set(labels[:, column].tolist()) - {NOT_ASKED}
        # What images show as they are; augmentation makes the other answers of these heads
        needed = {0} if head in ("rotation", "inverted", "mirrored") else set(range(CLASSES[head]))
        if missing := sorted(needed - given):
            shown = " or ".join(SHOWN[head, answer] for answer in missing)
            problems.append(
                f"the head {head} needs {part} images that are {shown}, and there are none"
            )
    if problems:
        raise ManifestError(*problems)


def after_variation(upright: Tensor, varied: Varied, heads: Sequence[Head]) -> Tensor:
    """The answers for transformed images.

    Args:
        upright: (B, len(heads)) of `answers_of`.
        varied: What was done to the same images.
        heads: In the order of the columns.
    """
    done: dict[Head, Tensor] = {
        "rotation": varied.quarters,
        "inverted": varied.inverted,
        "mirrored": varied.mirrored,
    }
    columns = [
        torch.where(upright[:, i] == NOT_ASKED, NOT_ASKED, done[head].to(upright.device))
        if head in done
        else upright[:, i]
        for i, head in enumerate(heads)
    ]
    return torch.stack(columns, dim=1)


def loss_of_heads(heads: Sequence[Head], weights: Mapping[Head, float]) -> Loss:
    """The loss that a trainer of these heads needs.

    Args:
        heads: In the order of the logits and of the labels' columns.
        weights: Of each head's cross-entropy; 1 where there is none.

    Returns:
        A function of logits, (B, len(heads)) int64 labels and the labels' smoothing. Each head's
        cross-entropy is averaged over the images that it is asked of.
    """

    def of_logits(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        total = logits.new_zeros(())
        for column, (head, own) in enumerate(by_head(logits.float(), heads).items()):
            truth = labels[:, column]
            summed = cross_entropy(
                own, truth, ignore_index=NOT_ASKED, label_smoothing=smoothing, reduction="sum"
            )
            asked = (truth != NOT_ASKED).sum().clamp(min=1)
            total = total + weights.get(head, 1.0) * summed / asked
        return total

    def loss(logits: Logits, labels: Tensor, smoothing: float) -> Tensor:
        total = of_logits(logits.main, labels, smoothing)
        for auxiliary in logits.auxiliary:
            total = total + AUXILIARY_WEIGHT * of_logits(auxiliary, labels, 0.0)
        return total

    return loss
