"""What one image costs a network at least: operations, and bytes to and from memory."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

# A compiler computes these where their input is made; what they would move is not counted
FUSED = frozenset({"Relu", "Add", "Mul", "Sub", "Div", "Sqrt", "Cast"})
Shapes = dict[str, tuple[int, ...]]


class Cost(NamedTuple):
    """Of one batch."""

    operations: int  # multiplications and additions of convolutions and matrix products
    moved_bytes: int  # each layer's inputs, weights and outputs once, without fused layers


def cost_of(model: bytes, batch: int) -> Cost:
    """The operations and bytes of one batch.

    Args:
        model: ONNX with one free dimension, the batch.
        batch: Images.
    """
    graph = _with_batch(model, batch).graph
    initial = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    shapes: Shapes = {name: array.shape for name, array in initial.items()}
    sizes = {name: array.nbytes for name, array in initial.items()}
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        shapes[info.name] = tuple(each.dim_value for each in kind.shape.dim)
        sizes[info.name] = prod(shapes[info.name]) * _bytes_of(kind.elem_type)
    layers = [node for node in graph.node if node.op_type not in FUSED]
    return Cost(
        sum(_operations(node, shapes) for node in layers),
        sum(sizes.get(name, 0) for node in layers for name in (*node.input, *node.output)),
    )


def _with_batch(model: bytes, batch: int) -> onnx.ModelProto:
    loaded = onnx.load_from_string(model)
    for info in (*loaded.graph.input, *loaded.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = batch
    del loaded.graph.value_info[:]
    return shape_inference.infer_shapes(loaded, data_prop=True)


def _operations(node: NodeProto, shapes: Shapes) -> int:
    if node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return 0
    weights, out = shapes[node.input[1]], shapes[node.output[0]]
    # (outputs, inputs / groups, rows, columns); of a matrix product, what both sides share
    each = prod(weights[1:]) if node.op_type == "Conv" else prod(weights) // out[-1]
    return 2 * prod(out) * each


def _bytes_of(element: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(element or TensorProto.FLOAT).itemsize)
