"""The head for chest radiographs, fitted last, on the features of the trained trunk.

The crops and halves that teach the views would teach this head that any piece of bone may be a
piece of a thorax. So it is fitted to whole images, in the ways to lie that archives hold. A
regression on fixed features also finds more images of a kind that did not train than the head that
was trained together with the trunk. It sees the certainty of the other heads beside the features:
of images of kinds that did not train, that halves those that are missed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.data.manifest import read_images
from training.evaluate.heads import oriented
from training.evaluate.torch_predictors import features
from training.networks.googlenet import GoogLeNet
from training.networks.heads import CLASSES, HeadLayer
from training.networks.swift import Swift
from training.train.sampling import ONE_VIEW_SHARE_OF_HEADS, sampling_weights
from training.train.settings import FitSettings, rows_of

WAYS = 4  # Beside as it is, each image is shown in so many of the 15 other ways, drawn at random
# C of the regression. From 0.01 to 1, the share of images found that are of kinds that did not
# train differs by 3 points
STRENGTH = 0.05


def fit_chest(network: GoogLeNet | Swift, settings: FitSettings, device: torch.device) -> None:
    """Replace the weights of the head `chest`; all others stay.

    Args:
        network: Trained; changed in place.
        settings: Of its run; its training images are read.
        device: Where the network is.
    """
    rows = rows_of(settings, "train")
    tensors = read_images(rows, settings.images, settings.spec).tensors
    shown = ways_shown(len(rows), settings.seed)
    parts = [moved[own] for (moved, _), own in zip(oriented(tensors), shown, strict=True)]
    at = np.concatenate([np.flatnonzero(own) for own in shown])
    layer = network.fc
    assert isinstance(layer, HeadLayer)
    found = features(network, np.concatenate(parts), device)
    with torch.inference_mode():
        certainties = layer.certainties(torch.from_numpy(found).to(device)).cpu().numpy()
    given = np.concatenate((found, certainties), axis=1)
    is_chest = np.array([row.view != "not_chest" for row in rows])
    scaler = StandardScaler().fit(given)
    drawn = sampling_weights(rows, ONE_VIEW_SHARE_OF_HEADS)[at]
    fitted = LogisticRegression(C=STRENGTH, max_iter=1000).fit(
        scaler.transform(given), is_chest[at], sample_weight=drawn / drawn.mean()
    )
    weights = fitted.coef_[0] / scaler.scale_
    bias = float(fitted.intercept_[0]) - float(weights @ scaler.mean_)
    _write(layer, weights, bias)


def ways_shown(count: int, seed: int) -> npt.NDArray[np.bool_]:
    """(16, N): which ways to lie each image is shown in; the first, as it is, always."""
    order = np.random.default_rng(seed).random((count, 15)).argsort(axis=1)
    return np.vstack((np.ones((1, count), bool), (order < WAYS).T))


def _write(layer: HeadLayer, weights: npt.NDArray[np.float64], bias: float) -> None:
    """Half of the difference into either class's logit."""
    heads = layer.heads
    first = sum(CLASSES[head] for head in heads[: heads.index("chest")])
    given = torch.from_numpy(weights).to(layer.weight)
    half = given[: layer.in_features] / 2
    with torch.no_grad():
        layer.weight[first], layer.weight[first + 1] = -half, half
        layer.bias[first], layer.bias[first + 1] = -bias / 2, bias / 2
        layer.certainty.copy_(given[layer.in_features :])
