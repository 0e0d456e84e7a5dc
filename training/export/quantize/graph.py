"""What an exported network looks like to those who change its numbers: a few patterns of nodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, numpy_helper


class Normalisation(NamedTuple):
    """One local response normalisation: x / root(1 + band * x * x), `band` a 1x1 convolution."""

    square: NodeProto
    band: NodeProto
    divide: NodeProto


def normalisations(graph: GraphProto) -> list[Normalisation]:
    """All of them, in the graph's order; a network without any has none."""
    producer = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        square = producer.get(node.input[0]) if node.op_type == "Conv" else None
        if square is not None and square.op_type == "Mul" and square.input[0] == square.input[1]:
            (divide,) = (
                each
                for each in graph.node
                if each.op_type == "Div" and each.input[0] == square.input[0]
            )
            found.append(Normalisation(square, node, divide))
    return found


def constant(graph: GraphProto, name: str) -> npt.NDArray[np.float32]:
    """The value of an initialiser."""
    (value,) = (each for each in graph.initializer if each.name == name)
    return numpy_helper.to_array(value)


def add_constant(graph: GraphProto, name: str, value: npt.NDArray[np.float32]) -> str:
    """A new initialiser; returns its name."""
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def remove_constant(graph: GraphProto, name: str) -> None:
    """Drop an initialiser that no node uses any more."""
    (value,) = (each for each in graph.initializer if each.name == name)
    graph.initializer.remove(value)


def insert(graph: GraphProto, near: NodeProto, *nodes: NodeProto, after: bool = False) -> None:
    """Put nodes before or after another; a graph lists its nodes in the order of their use."""
    at = list(graph.node).index(near) + after
    for offset, node in enumerate(nodes):
        graph.node.insert(at + offset, node)
