"""What a new network must beat: logistic regression on frozen features of the pre-trained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model_store import Plateau
from training.evaluate import OperatingPoint, Pfi
from training.googlenet import GoogLeNet, load_pretrained
from training.manifest import LabelledImages

# The regression's own cutoff; nothing is tuned, so there is no band
HALF = OperatingPoint(
    Plateau(low=0.5, high=0.5, youden_j=0, measured_on="not measured: fixed at 0.5", images=0),
    rule="high",
    margin_logits=0,
)


def frozen_features(
    tensors: npt.NDArray[np.uint8], weights: Path, device: torch.device, batch: int = 32
) -> npt.NDArray[np.float32]:
    """(N, 1, S, S) uint8 -> (N, 1024) averages of the last maps of the pre-trained network."""
    network = GoogLeNet()
    load_pretrained(network, weights)
    network = network.to(device).eval()
    with torch.inference_mode():
        parts = [
            network.features(chunk.to(device).float()).cpu().numpy()
            for chunk in torch.split(torch.from_numpy(tensors), batch)
        ]
    return np.concatenate(parts)


def baseline_pfi(
    train: LabelledImages, test: LabelledImages, weights: Path, device: torch.device
) -> Pfi:
    """Fit the regression on `train`; returns (N,) PFI of `test`."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    model.fit(frozen_features(train.tensors, weights, device), train.labels)
    pfi: Pfi = model.predict_proba(frozen_features(test.tensors, weights, device))[:, 1]
    return pfi.astype(np.float32)
