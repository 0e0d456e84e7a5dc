"""Where in an image an answer comes from: what happens to it when a part is hidden.

References:
    Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from training.evaluate.cutoff import NEAREST
from training.evaluate.metrics import Predict


def occlusion_map(
    predict: Predict, tensor: npt.NDArray[np.uint8], cells: int = 8
) -> npt.NDArray[np.float64]:
    """The change of the PFI's logit as one part after the other turns grey.

    A part is a cell of the grid and half a cell around it, so that neighbours overlap and nothing
    escapes by lying on a border. The grey is the image's median.

    Args:
        predict: The model.
        tensor: (1, S, S), S at least `cells`.
        cells: On a side.

    Returns:
        (cells, cells): above 0 where the part spoke for a frontal image, below 0 for a lateral.
        PFIs are kept within 1e-6 of 0 and 1, so that differences stay finite.
    """
    side = tensor.shape[-1]
    hidden = np.repeat(tensor[None], cells * cells, axis=0)
    edges = np.arange(cells) / cells * side
    lows = np.maximum(np.rint(edges - side / cells / 2), 0).astype(int)
    highs = np.rint(edges + side / cells * 1.5).astype(int)
    grey = np.uint8(np.median(tensor))
    for number, picture in enumerate(hidden):
        row, column = divmod(number, cells)
        picture[:, lows[row] : highs[row], lows[column] : highs[column]] = grey
    pfi = predict(np.concatenate((tensor[None], hidden))).astype(np.float64)
    logits = logit(pfi.clip(NEAREST, 1 - NEAREST))
    return np.asarray(logits[0] - logits[1:]).reshape(cells, cells)
