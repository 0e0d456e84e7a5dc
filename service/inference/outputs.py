"""The outputs of a model's graph, and what they say of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from model_store import ModelCard, Prediction, Task

Output = Literal["pfi"] | Task
EVIDENCE = "evidence"  # a map of each image, which is no part of a prediction


def outputs_of(card: ModelCard) -> tuple[Output, ...]:
    """The outputs that make a prediction: `pfi`, and one for each head that the card declares."""
    return ("pfi", *(task for task in get_args(Task) if getattr(card.heads, task)))


def predictions_of(
    outputs: Sequence[Output], arrays: Sequence[npt.NDArray[np.float32]]
) -> list[Prediction]:
    """The predictions of a batch.

    Args:
        outputs: Their names.
        arrays: Their values, probabilities: (B, 4) of `rotation`, and (B,) of each other.
    """
    columns: list[Any] = [
        map(tuple, array.tolist()) if array.ndim > 1 else array.tolist() for array in arrays
    ]
    return [
        Prediction(**dict(zip(outputs, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]
