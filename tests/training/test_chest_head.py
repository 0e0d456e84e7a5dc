"""The head `chest`, fitted to the trained trunk."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from images import radiograph
from labelled import write_labelled

from training.data.manifest import read_images
from training.evaluate.heads import predict_oriented
from training.evaluate.torch_predictors import predict_heads
from training.networks.heads import HeadLayer
from training.train.chest_head import WAYS, fit_chest, ways_shown
from training.train.fit import network_of
from training.train.settings import FitSettings, rows_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FitSettings:
    """Synthetic thoraxes, and noise of two kinds."""
    folder = tmp_path_factory.mktemp("data")
    images = []
    for number in range(12):
        random = np.random.default_rng(number)
        picture = radiograph(140, 128, bits=8, seed=number).astype(np.uint8)
        noise = random.integers(0, 256, (90, 80)).astype(np.uint8)
        plain = np.full((90, 80), 100, np.uint8)
        plain[:45] += random.integers(0, 100, dtype=np.uint8)
        images += [
            (f"frontal-{number}", "frontal", "one", picture),
            (f"lateral-{number}", "lateral", "one", picture[:, :64]),
            (f"noise-{number}", "not_chest", "noise", noise),
            (f"plain-{number}", "not_chest", "plain", plain),
        ]
    write_labelled(folder, images)
    return FitSettings(
        manifest=folder / "manifest.csv",
        images=folder,
        weights=None,
        network="swift",
        size=64,
        heads=("view", "rotation", "chest", "inverted"),
    )


@pytest.mark.parametrize("name", ["swift", "googlenet"])
def test_it_tells_chests_in_all_ways_to_lie_and_changes_nothing_else(
    settings: FitSettings, name: Literal["swift", "googlenet"]
) -> None:
    """Of images that did not fit it, too; equal data give equal weights."""
    torch.manual_seed(1)
    network = network_of(replace(settings, network=name)).eval()
    assert isinstance(network.fc, HeadLayer)
    train, test = (rows_of(settings, part) for part in ("train", "test"))
    tensors = read_images(train, settings.images, settings.spec).tensors
    before = predict_heads(network, settings.heads, tensors, CPU)
    fit_chest(network, settings, CPU)
    after = predict_heads(network, settings.heads, tensors, CPU)
    for output in ("pfi", "rotation", "inverted"):
        np.testing.assert_array_equal(after[output], before[output])
    fitted = {key: value.clone() for key, value in network.fc.state_dict().items()}
    assert fitted["certainty"].all()
    fit_chest(network, settings, CPU)
    assert all(torch.equal(value, fitted[key]) for key, value in network.fc.state_dict().items())

    for rows in (train, test):
        images = read_images(rows, settings.images, settings.spec).tensors
        shown = predict_oriented(
            lambda some: predict_heads(network, settings.heads, some, CPU), images, rows
        )
        truth = np.array([row.view != "not_chest" for row in shown.rows])
        assert ((shown.outputs["chest"] >= 0.5) == truth).mean() > 0.98


def test_every_image_is_shown_as_it_is_and_in_as_many_other_ways() -> None:
    """Which ones, chance decides."""
    shown = ways_shown(200, 1)
    assert shown.shape == (16, 200)
    assert shown[0].all()
    assert set(shown.sum(axis=0)) == {1 + WAYS}
    assert (shown[1:].sum(axis=1) > 0).all()
