"""Several heads on one trunk: what is asked of an image, the loss, the samples, the export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from training.augmentation.augment import UNKNOWN, Varied
from training.data.manifest import Row
from training.networks.googlenet import GoogLeNet, Logits
from training.networks.heads import (
    NOT_ASKED,
    Head,
    HeadLayer,
    PredictionNetwork,
    by_head,
    classes_of,
)
from training.networks.swift import Swift
from training.train.heads import after_variation, answers_of, loss_of_heads
from training.train.sampling import NEGATIVE_SHARE, sampling_weights

HEADS: tuple[Head, ...] = ("view", "chest", "rotation", "inverted", "mirrored", "projection")
FRONTAL = Row("a.png", "frontal", "1", "here", projection="AP")
LATERAL = Row("b.png", "lateral", "2", "here")
HAND = Row("c.png", "not_chest", "3", "hands")


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        (FRONTAL, [1, 1, 0, 0, 0, 1]),
        (LATERAL, [0, 1, 0, 0, NOT_ASKED, NOT_ASKED]),
        (HAND, [NOT_ASKED, 0, *[NOT_ASKED] * 4]),
        (replace(FRONTAL, upright="no"), [1, 1, *[NOT_ASKED] * 3, 1]),
    ],
)
def test_an_image_is_asked_what_applies_to_it(row: Row, answers: list[int]) -> None:
    """A hand has no view, a lateral no handedness; what lies on its side tells nothing of it."""
    assert answers_of([row], HEADS).tolist() == [answers]


def test_answers_follow_what_was_done_to_the_image() -> None:
    """Rotation, polarity and handedness are what augmentation made them, where they are asked."""
    varied = Varied(torch.zeros(3), *torch.tensor([[3, 1, 2], [1, 1, 1], [1, 0, 1]]))
    found = after_variation(answers_of([FRONTAL, LATERAL, HAND], HEADS), varied, HEADS)
    none = NOT_ASKED
    assert found.tolist() == [[1, 1, 3, 1, 1, 1], [0, 1, 1, 0, none, none], [none, 0, *[none] * 4]]
    unknown = varied._replace(quarters=torch.full((3,), UNKNOWN))
    found = after_variation(answers_of([FRONTAL, LATERAL, HAND], HEADS), unknown, HEADS)
    assert found[:, 2].tolist() == [NOT_ASKED] * 3


def test_what_is_not_asked_teaches_nothing() -> None:
    """A hand moves the logits of `chest` alone; each head's loss is a mean over who was asked."""
    logits = torch.zeros(3, classes_of(HEADS), requires_grad=True)
    loss = loss_of_heads(HEADS, {})(
        Logits(logits), answers_of([FRONTAL, LATERAL, HAND], HEADS), 0.0
    )
    two, four = np.log(2), np.log(4)
    assert loss.item() == pytest.approx(two + two + four + two + two + two)
    loss.backward()
    assert logits.grad is not None
    moved = {head: own.abs().sum(1) > 0 for head, own in by_head(logits.grad, HEADS).items()}
    assert moved["chest"].all()
    assert [bool(own[2]) for own in moved.values()] == [False, True, False, False, False, False]


def test_a_batch_of_which_nothing_is_asked_has_a_loss_of_zero() -> None:
    """No division by nothing; and weights and auxiliary heads count."""
    only = ("view", "mirrored")
    logits = torch.zeros(1, classes_of(only))
    assert loss_of_heads(only, {})(Logits(logits), torch.tensor([[-1, -1]]), 0.0) == 0
    weighted = loss_of_heads(only, {"mirrored": 0.5})
    found = weighted(Logits(logits, (logits,)), torch.tensor([[1, 0]]), 0.0)
    assert found.item() == pytest.approx(1.3 * 1.5 * np.log(2))


def test_negatives_are_drawn_evenly_from_their_sources() -> None:
    """A source of three images weighs as much as one of thirty; views keep their balance."""
    hands = [replace(HAND, file=f"{i}", source="hands") for i in range(30)]
    knees = [replace(HAND, file=f"k{i}", source="knees") for i in range(3)]
    views = [replace(FRONTAL, file=f"f{i}") for i in range(9)] + [LATERAL]
    weights = sampling_weights([*hands, *knees, *views])
    assert weights.sum() == pytest.approx(1)
    assert weights[:30].sum() == pytest.approx(NEGATIVE_SHARE / 2)
    assert weights[30:33].sum() == pytest.approx(NEGATIVE_SHARE / 2)
    np.testing.assert_allclose(weights[33:], (1 - NEGATIVE_SHARE) * sampling_weights(views))


def test_chest_hears_how_certain_the_other_heads_are() -> None:
    """By how much the best answer of each beats the second, weighted; and no other head changes."""
    torch.manual_seed(1)
    heads, features = ("view", "chest", "rotation"), torch.randn(5, 7)
    plain = nn.Linear(7, classes_of(heads))
    layer = HeadLayer(plain, heads)
    assert torch.equal(layer(features), plain(features))  # until it is fitted
    layer.certainty.copy_(torch.tensor([2.0, 3.0]))
    before, after = (by_head(some(features), heads) for some in (plain, layer))
    for head in ("view", "rotation"):
        assert torch.equal(after[head], before[head])
    view, rotation = (before[head].sort(dim=1, descending=True).values for head in heads[::2])
    certainties = torch.stack((view[:, 0] - view[:, 1], rotation[:, 0] - rotation[:, 1]), dim=1)
    torch.testing.assert_close(layer.certainties(features), certainties)
    added = torch.diff(after["chest"] - before["chest"]).squeeze(1)
    torch.testing.assert_close(added, certainties @ torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize(("network", "side"), [(GoogLeNet, 224), (Swift, 64)])
def test_the_exported_network_gives_probabilities_and_a_map_that_adds_up(
    network: type[GoogLeNet | Swift], side: int
) -> None:
    """The mean of the evidence is the logit of the PFI; probabilities are the heads' softmax."""
    torch.manual_seed(1)
    inner = network(classes_of(HEADS)).eval()
    inner.fc = HeadLayer(inner.fc, HEADS)
    inner.fc.certainty.uniform_(0.1, 1)
    model = PredictionNetwork(inner, HEADS).eval()
    tensors = torch.randint(0, 256, (2, 1, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        found = dict(zip(model.outputs, model(tensors), strict=True))
        logits = by_head(inner(tensors.float()).main, HEADS)
    assert list(found) == ["pfi", *HEADS[1:], "evidence"]
    torch.testing.assert_close(found["pfi"], logits["view"].softmax(1)[:, 1])
    torch.testing.assert_close(found["rotation"], logits["rotation"].softmax(1))
    torch.testing.assert_close(found["chest"], logits["chest"].softmax(1)[:, 1])
    evidence = found["evidence"]
    assert evidence.ndim == 3
    torch.testing.assert_close(
        evidence.mean((1, 2)), torch.logit(found["pfi"]), rtol=1e-3, atol=1e-4
    )
