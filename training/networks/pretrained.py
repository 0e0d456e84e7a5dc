"""`python -m training weights`: the published weights of BVLC GoogLeNet as one npz file.

The Caffe model is published as one binary file for each layer's weights and for each layer's biases
in github.com/chaosmail/caffejs, folder models/bvlc_googlenet/weights: float32, little-endian, in
the order (out, in, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.networks.googlenet import GoogLeNet

CLASSES = 1000
COLOURS = 3
BRANCHES = {
    "b1": "1x1",
    "b3r": "3x3_reduce",
    "b3": "3x3",
    "b5r": "5x5_reduce",
    "b5": "5x5",
    "bp": "pool_proj",
}
STEM = {
    "conv1": "conv1/7x7_s2",
    "conv2r": "conv2/3x3_reduce",
    "conv2": "conv2/3x3",
    "fc": "loss3/classifier",
}
KINDS = {"weight": "filter", "bias": "bias"}
# Of all values in the order of the parameters' names
SHA256 = "788fadadfeb289b403f69df1d8a1bdfc7c9580cf33a1f77b54a974271c3189ea"

Arrays = Mapping[str, npt.NDArray[np.float32]]


def add_command(commands: Any) -> None:
    """`weights FOLDER NPZ`, among the commands of `python -m training`."""
    command = commands.add_parser(
        "weights", help="convert the published pre-trained GoogLeNet for --weights"
    )
    command.add_argument("folder", type=Path, help="models/bvlc_googlenet/weights of caffejs")
    command.add_argument("npz", type=Path, help="file to write, as bvlc_googlenet.npz")
    command.set_defaults(run_command=lambda options: convert(options.folder, options.npz))


def convert(folder: Path, npz: Path) -> None:
    """Write all parameters into one file, by their names in `GoogLeNet`.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: The values are not those that were published.
    """
    arrays = {}
    for name, shape in shapes().items():
        values = np.fromfile(folder / file_of(name), "<f4")
        if values.size != np.prod(shape):
            raise ValueError(f"{file_of(name)} has {values.size} values, not {np.prod(shape)}")
        arrays[name] = values.reshape(shape)
    if digest(arrays) != SHA256:
        raise ValueError(f"{folder} does not hold the published weights of BVLC GoogLeNet")
    np.savez(npz, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for its option


def shapes() -> dict[str, tuple[int, ...]]:
    """The shape of each published parameter; the first layer has three colours."""
    network = GoogLeNet(CLASSES, auxiliary=False)
    found = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.startswith("aux")
    }
    outputs, _, *kernel = found["conv1.weight"]
    return found | {"conv1.weight": (outputs, COLOURS, *kernel)}


def file_of(name: str) -> str:
    """The published file of a parameter."""
    layer, kind = name.rsplit(".", 1)
    if layer in STEM:
        path = STEM[layer]
    else:
        block, branch = layer.split(".")
        path = f"{block.replace('inc', 'inception_')}/{BRANCHES[branch]}"
    return f"{path}_{KINDS[kind]}.bin"


def digest(arrays: Arrays) -> str:
    """SHA-256 of all values."""
    whole = sha256()
    for name in sorted(arrays):
        whole.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return whole.hexdigest()
