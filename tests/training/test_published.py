"""Published versions as the start of another training."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from images import radiograph
from torch import nn

from model_store import DEFAULT_MODEL, Store
from service.imaging import image_to_tensor
from training.networks.googlenet import GoogLeNet
from training.networks.heads import Head, HeadLayer, by_head, classes_of
from training.networks.published import start_from
from training.networks.swift import Swift
from training.train.trainer import Net

ALL: tuple[Head, ...] = ("view", "chest", "rotation", "inverted", "mirrored")
CLASSES = classes_of(ALL)


def headed(network: Net, heads: tuple[Head, ...] = ALL) -> Net:
    """The same, with a layer of these heads."""
    network.fc = HeadLayer(network.fc, heads)
    return network


def sample(size: int, count: int = 4) -> torch.Tensor:
    """(B, 1, S, S) of 0..255, radiographs from one that is dark to one that is bright."""
    picture = torch.from_numpy(radiograph(size, size, bits=8).astype(np.float32))
    return torch.stack([picture * gain for gain in torch.linspace(0.5, 1, count)])[:, None]


@pytest.mark.parametrize(
    ("reference", "network"),
    [
        ("swift/1.1.0", headed(Swift(CLASSES, hint=False))),
        ("swift/1.1.0", headed(Swift(CLASSES))),
        ("googlenet/1.1.0", headed(GoogLeNet(CLASSES))),
    ],
)
def test_a_network_answers_as_the_version_it_starts_from(
    reference: str, network: nn.Module
) -> None:
    """Its view head gives the version's PFI; in training, too, it is about that."""
    version = Store().load(reference)
    images = sample(version.card.preprocess.size)
    start_from(network, version, images)
    shown = image_to_tensor(version.probe, version.card.preprocess)[np.newaxis]
    shown = np.concatenate([shown, images.numpy().astype(np.uint8)])
    session = onnxruntime.InferenceSession(version.model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["pfi"], {"tensors": shown})
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(shown).float()).main
    assert logits.shape == (len(shown), CLASSES)
    found = logits[:, :2].softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if isinstance(network, Swift):  # batch normalisation: as trained on the sample
        with torch.inference_mode():
            trained = network.train()(images).main[:, :2]
            usual = network.eval()(images).main[:, :2]
        torch.testing.assert_close(trained, usual, atol=0.05, rtol=0.02)


@pytest.mark.parametrize(
    "heads",
    [
        ("view", "mirrored", "inverted", "rotation"),
        ("view", "rotation", "projection", "inverted"),
        ("view", "rotation"),
        ("view",),
    ],
    ids=str,
)
def test_each_head_begins_with_its_own_weights(heads: tuple[Head, ...]) -> None:
    """Whatever the order; those that the version lacks stay as they were."""
    version = Store().load(DEFAULT_MODEL)
    network = headed(Swift(classes_of(heads), hint=False), heads)
    fresh = {head: own.clone() for head, own in by_head(network.fc.weight.T, heads).items()}
    start_from(network, version, sample(version.card.preprocess.size))
    session = onnxruntime.InferenceSession(version.model, providers=["CPUExecutionProvider"])
    shown = image_to_tensor(version.probe, version.card.preprocess)[np.newaxis]
    with torch.inference_mode():
        logits = by_head(network.eval()(torch.from_numpy(shown).float()).main, heads)
    for head in heads:
        if head == "projection":
            assert torch.equal(by_head(network.fc.weight.T, heads)[head], fresh[head])
            continue
        (expected,) = session.run(["pfi" if head == "view" else head], {"tensors": shown})
        found = logits[head].softmax(dim=1)
        found = found if found.shape[1] > 2 else found[:, 1]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("reference", "network"),
    [
        ("swift/1.1.0", headed(GoogLeNet(CLASSES))),
        ("googlenet/1.1.0", headed(Swift(CLASSES))),
        ("googlenet-int8/1.1.0", headed(GoogLeNet(CLASSES))),
    ],
)
def test_another_network_is_refused(reference: str, network: nn.Module) -> None:
    """Weights of another architecture, or in integers, are no start."""
    with pytest.raises(ValueError, match=rf"{reference} has no \S+ of shape"):
        start_from(network, Store().load(reference), sample(64))
