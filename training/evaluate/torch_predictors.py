"""What a network of torch answers, in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.evaluate.heads import Outputs, Tensors
from training.evaluate.metrics import Pfi
from training.networks.googlenet import GoogLeNet, PfiNetwork
from training.networks.heads import Head, PredictionNetwork
from training.networks.swift import Swift


def predict(
    network: nn.Module,
    tensors: npt.NDArray[np.uint8],
    device: torch.device,
    batch: int = 32,
    temperature: float = 1.0,
) -> Pfi:
    """(N, 1, S, S) uint8 -> (N,) PFI in full precision, with a progress bar."""
    chunks = torch.split(torch.from_numpy(tensors), batch)
    model = PfiNetwork(network, temperature).eval()
    return forward(model, (chunk.to(device) for chunk in chunks), len(chunks))


def features(
    network: GoogLeNet | Swift,
    tensors: npt.NDArray[np.uint8],
    device: torch.device,
    batch: int = 32,
) -> npt.NDArray[np.float32]:
    """(N, 1, S, S) uint8 -> (N, F), the averages of the last maps, of a network in evaluation."""
    chunks = torch.split(torch.from_numpy(tensors), batch)
    batches = (chunk.to(device).float() for chunk in chunks)
    return forward(network.features, batches, len(chunks))


def forward(
    network: Callable[[Tensor], Tensor], batches: Iterable[Tensor], count: int
) -> npt.NDArray[np.float32]:
    """The outputs for all batches, one after the other, without gradients.

    Args:
        network: In evaluation mode; (B, ...) -> (B, ...).
        batches: On the network's device.
        count: Of batches, for the progress bar.
    """
    with torch.inference_mode():
        bar = tqdm(batches, "predict", count, unit="batch", leave=False)
        return np.concatenate([network(batch).cpu().numpy() for batch in bar])


def predict_heads(
    network: nn.Module,
    heads: Sequence[Head],
    tensors: Tensors,
    device: torch.device,
    batch: int = 32,
) -> Outputs:
    """(N, 1, S, S) uint8 -> the probabilities of all heads in full precision."""
    model = PredictionNetwork(network, heads).eval().to(device)
    parts: dict[str, list[Tensor]] = {name: [] for name in model.outputs if name != "evidence"}
    chunks = torch.split(torch.from_numpy(tensors), batch)
    with torch.inference_mode():
        for chunk in tqdm(chunks, "predict", unit="batch", leave=False):
            found = dict(zip(model.outputs, model(chunk.to(device)), strict=True))
            for name, own in parts.items():
                own.append(found[name].cpu())
    return {name: torch.cat(own).numpy() for name, own in parts.items()}
