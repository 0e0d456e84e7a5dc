"""The network against its sources: torch's normalisation and the pre-trained colour weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from training.networks.googlenet import (
    CAFFE_MEANS,
    MEAN,
    GoogLeNet,
    LocalResponseNorm,
    PfiNetwork,
    load_pretrained,
)


def test_the_normalisation_is_torchs() -> None:
    """Written as convolution and roots, it equals LocalResponseNorm(5, 1e-4, 0.75, 1)."""
    x = torch.randn(2, 64, 9, 7) * 300
    torch.testing.assert_close(LocalResponseNorm(64)(x), torch.nn.LocalResponseNorm(5)(x))


@pytest.mark.parametrize("size", [224, 256])
def test_shapes(size: int) -> None:
    """(B, 1, S, S) -> (B, 2) logits, auxiliary ones only while training; (B,) PFI within 0..1."""
    network = GoogLeNet()
    x = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    network.train()
    logits = network(x.float())
    assert logits.main.shape == (2, 2)
    assert [head.shape for head in logits.auxiliary] == [(2, 2), (2, 2)]
    network.eval()
    assert network(x.float()).auxiliary == ()
    assert network.features(x.float()).shape == (2, 1024)
    pfi = PfiNetwork(network)(x)
    assert pfi.shape == (2,)
    assert ((pfi >= 0) & (pfi <= 1)).all()


def colour_arrays(tmp_path: Path) -> Path:
    """An array file as the pre-trained one: all layers, conv1 in colour, a 1000-class fc."""
    torch.manual_seed(0)
    arrays = {
        name: value.numpy()
        for name, value in GoogLeNet().state_dict().items()
        if not name.startswith(("aux", "fc."))
    }
    arrays["conv1.weight"] = np.random.default_rng(0).normal(size=(64, 3, 7, 7)).astype(np.float32)
    arrays["fc.weight"] = np.zeros((1000, 1024), np.float32)
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays)
    return path


def test_the_grey_fold_equals_three_equal_channels(tmp_path: Path) -> None:
    """Away from the zero-padded border, one channel gives what three equal ones gave."""
    path = colour_arrays(tmp_path)
    network = GoogLeNet()
    load_pretrained(network, path)
    arrays = np.load(path)
    grey = torch.rand(1, 1, 32, 32) * 255
    colour = grey.repeat(1, 3, 1, 1) - torch.tensor(CAFFE_MEANS)[None, :, None, None]
    weight, bias = torch.from_numpy(arrays["conv1.weight"]), torch.from_numpy(arrays["conv1.bias"])
    expected = conv2d(colour, weight, bias, stride=2)
    found = conv2d(grey - MEAN, network.conv1.weight, network.conv1.bias, stride=2)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-4)


def test_all_layers_but_the_last_are_loaded(tmp_path: Path) -> None:
    """Every array lands in its layer; the classifiers stay fresh."""
    path = colour_arrays(tmp_path)
    network = GoogLeNet()
    fresh = network.fc.weight.clone()
    load_pretrained(network, path)
    arrays = np.load(path)
    for name, value in network.state_dict().items():
        if not name.startswith(("aux", "fc.", "conv1.")):
            np.testing.assert_array_equal(value.numpy(), arrays[name], err_msg=name)
    assert torch.equal(network.fc.weight, fresh)


def test_wrong_weights_are_told_by_their_layer(tmp_path: Path) -> None:
    """A missing or misshapen array names itself."""
    arrays = dict(np.load(colour_arrays(tmp_path)))
    arrays["inc4c.b3.weight"] = arrays["inc4c.b3.weight"][:1]
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=r"wrong\.npz has no inc4c\.b3\.weight"):
        load_pretrained(GoogLeNet(), tmp_path / "wrong.npz")


def test_the_given_weights_load(shared: Path) -> None:
    """The published array file has every layer, in the shapes that ours have."""
    network = GoogLeNet()
    load_pretrained(network, shared / "data/weights/bvlc_googlenet.npz")
    assert network.conv1.weight.shape == (64, 1, 7, 7)
