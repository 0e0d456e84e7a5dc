"""Half precision, for a GPU: half the bytes, and its tensor cores.

Half precision ends at 65,504, and the square of what a normalisation gets does not: so its input
is scaled before it is squared.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from training.export.quantize.graph import (
    add_constant,
    constant,
    insert,
    normalisations,
    remove_constant,
)

HEAD = ["ReduceMean", "Gemm", "Softmax", "Gather"]  # stay in float: PFIs near 1 need its digits


def to_fp16(model: bytes) -> bytes:
    """The network in half precision, but for its head; the same input and output.

    Args:
        model: ONNX, as `training.export.publish.export` wrote it.
    """
    changed = onnx.load_from_string(model)
    del changed.graph.value_info[:]
    scale_before_squaring(changed.graph)
    onnx.checker.check_model(changed, full_check=True)
    halved = convert_float_to_float16(changed, keep_io_types=True, op_block_list=HEAD)
    OnnxModel(halved).topological_sort()  # the conversion puts its casts last
    onnx.checker.check_model(halved, full_check=True)
    serialised: bytes = halved.SerializeToString()
    return serialised


def scale_before_squaring(graph: GraphProto) -> None:
    """A band of c over x * x -> a band of ones over (root(c) * x) * (root(c) * x): equal."""
    for index, (square, band, _) in enumerate(normalisations(graph)):
        weights = constant(graph, band.input[1])
        root = add_constant(graph, f"root_{index}", np.sqrt(weights.max()))
        scaled = f"scaled_{index}"
        insert(graph, square, helper.make_node("Mul", [square.input[0], root], [scaled]))
        square.input[:] = [scaled, scaled]
        remove_constant(graph, band.input[1])
        band.input[1] = add_constant(graph, f"ones_{index}", np.sign(weights))
