"""Several linear heads on one trunk: the view, and what else an image says of itself.

The heads lie side by side in the network's last layer. `view` is always the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

Head = Literal["view", "chest", "rotation", "inverted", "mirrored", "projection"]
HEADS: tuple[Head, ...] = get_args(Head)
# Classes in the order of their logits: view lateral, frontal; chest no, yes; rotation 0, 90, 180,
# 270 degrees clockwise to upright; inverted and mirrored no, yes; projection PA, AP
CLASSES: dict[Head, int] = {
    "view": 2,
    "chest": 2,
    "rotation": 4,
    "inverted": 2,
    "mirrored": 2,
    "projection": 2,
}
NOT_ASKED = -1  # the label where a question does not apply, as the view of a hand


class HeadedNetwork(Protocol):
    """A network whose last layer is that of its heads."""

    fc: nn.Linear  # a HeadLayer; linear for all heads but chest

    def maps(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) of 0..255 -> (B, F, h, w)."""


def classes_of(heads: Sequence[Head]) -> int:
    """The logits that these heads have together."""
    return sum(CLASSES[head] for head in heads)


def by_head(logits: Tensor, heads: Sequence[Head]) -> dict[Head, Tensor]:
    """(B, classes_of(heads)) -> (B, classes) of each head."""
    parts = torch.split(logits, [CLASSES[head] for head in heads], dim=1)
    return dict(zip(heads, parts, strict=True))


class HeadLayer(nn.Linear):
    """All heads: (B, F), the averages of the last map, -> logits, (B, classes_of(heads)).

    The logits of `chest` also depend on how certain the other heads are. Those learn from
    radiographs alone, so they are unsure of other images, also of kinds that did not train.

    Args:
        fc: The layer whose place it takes, with its weights.
        heads: In the order of the logits.
    """

    certainty: Tensor  # (heads other than chest,), what the certainty of each adds; 0 until fitted

    def __init__(self, fc: nn.Linear, heads: Sequence[Head]) -> None:
        super().__init__(fc.in_features, fc.out_features, device="meta")
        self.weight, self.bias, self.heads = fc.weight, fc.bias, tuple(heads)
        if "chest" in heads:
            self.register_buffer("certainty", torch.zeros(len(heads) - 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, classes)."""
        logits = super().forward(features)
        if "chest" not in self.heads:
            return logits
        parts = by_head(logits, self.heads)
        added = self._certainties(parts) @ self.certainty / 2
        parts["chest"] = parts["chest"] + torch.stack((-added, added), dim=1)
        return torch.cat(list(parts.values()), dim=1)

    def certainties(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, heads other than chest): by how much the best logit beats the second."""
        return self._certainties(by_head(super().forward(features), self.heads))

    @staticmethod
    def _certainties(parts: dict[Head, Tensor]) -> Tensor:
        best = [own.topk(2, dim=1).values for head, own in parts.items() if head != "chest"]
        first, second = torch.stack(best, dim=2).unbind(dim=1)
        return first - second


class PredictionNetwork(nn.Module):
    """What is exported: uint8 in; the probabilities of all heads, and the evidence map, out.

    Args:
        network: A HeadedNetwork.
        heads: In the order of its logits.
    """

    def __init__(self, network: nn.Module, heads: Sequence[Head]) -> None:
        super().__init__()
        self.network, self.heads = network, tuple(heads)

    @property
    def outputs(self) -> list[str]:
        """The names of what `forward` returns."""
        return ["pfi", *self.heads[1:], "evidence"]

    def forward(self, tensors: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, S, S) uint8 -> float32 in the order of `outputs`.

        Heads of two classes give (B,), the probability of the second; rotation (B, 4). `evidence`
        is (B, h, w): what each place of the last map adds to the logit of the PFI, which is the
        mean of all places. Positive speaks for frontal.

        References:
            Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
        """
        network: HeadedNetwork = self.network  # type: ignore[assignment]  # a module, and this
        maps = network.maps(tensors.float())
        logits = by_head(network.fc(maps.mean(dim=(2, 3))), self.heads)
        probabilities = [logits[head].softmax(dim=1) for head in self.heads]
        two = [p if p.shape[1] > 2 else p[:, 1] for p in probabilities]
        weights, bias = network.fc.weight, network.fc.bias
        evidence = torch.einsum("bfhw,f->bhw", maps, weights[1] - weights[0])
        return (*two, evidence + (bias[1] - bias[0]))
