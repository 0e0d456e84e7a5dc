"""What an exported network answers, as the service would on a CPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnxruntime
from tqdm import tqdm

from training.evaluate.heads import Outputs, PredictHeads, Tensors
from training.evaluate.metrics import SERVING_BATCH, Pfi, Predict, in_batches

INPUT = "tensors"  # of the exported graph


def predictor(model: bytes) -> Predict:
    """(N, 1, S, S) uint8 -> (N,) PFI, as the service would answer on a CPU."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run(tensors: Tensors) -> Pfi:
        found: Pfi = session.run(None, {INPUT: tensors})[0]
        return found

    return partial(in_batches, run)


def heads_predictor(model: bytes) -> PredictHeads:
    """(N, 1, S, S) uint8 -> the probabilities of all heads, as the service would answer."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs() if each.name != "evidence"]

    def run(tensors: Tensors) -> Outputs:
        starts = range(0, len(tensors), SERVING_BATCH)
        parts = [
            session.run(names, {INPUT: tensors[at : at + SERVING_BATCH]})
            for at in tqdm(starts, "classify", unit="batch", leave=False)
        ]
        columns = zip(*parts, strict=True)
        return {name: np.concatenate(own) for name, own in zip(names, columns, strict=True)}

    return run
