"""The outputs of a model's graph, and what they say of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from model_store import ROTATIONS, ModelCard, Prediction, Task
from service.inference.errors import OutputError

Output = Literal["pfi"] | Task
EVIDENCE = "evidence"  # a map of each image, which is no part of a prediction


def outputs_of(card: ModelCard) -> tuple[Output, ...]:
    """The outputs that make a prediction: `pfi`, and one for each head that the card declares."""
    return ("pfi", *(task for task in get_args(Task) if getattr(card.heads, task)))


def predictions_of(
    outputs: Sequence[Output], arrays: Sequence[npt.NDArray[np.float32]], images: int
) -> list[Prediction]:
    """The predictions of a batch.

    Args:
        outputs: Their names.
        arrays: Their values, probabilities: (B, 4) of `rotation`, and (B,) of each other.
        images: B.

    Raises:
        OutputError: An array has another shape or type.
    """
    for output, array in zip(outputs, arrays, strict=True):
        shape = (images, len(ROTATIONS)) if output == "rotation" else (images,)
        if array.shape != shape or array.dtype != np.float32:
            raise OutputError(
                f"the output {output} of {images} images must be float32 of the shape {shape}, and "
                f"is {array.dtype} of {array.shape}"
            )
    columns: list[Any] = [
        map(tuple, array.tolist()) if array.ndim > 1 else array.tolist() for array in arrays
    ]
    return [
        Prediction(**dict(zip(outputs, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]
