"""A model with all heads: the published `swift`, and heads that look at single pixels.

Its view is that of `swift`, and its evidence the class activation map of `swift`. Bright corners
and sides of a picture decide the rest, so that a test can ask for any answer (`marked`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store import (
    HeadCutoff,
    HeadEvaluation,
    Heads,
    Interval,
    ModelVersion,
    Prediction,
    Proportion,
    Store,
)
from model_store.store import sha256
from service.imaging import image_to_tensor

SIZE = 128  # of swift's tensors
LAST = SIZE - 1
# Bright: no chest radiograph; inverted; mirrored; must be turned by 90, 180, 270 degrees
Mark = Literal["no_chest", "inverted", "mirrored", "turn_90", "turn_180", "turn_270"]
PLACES: dict[Mark | Literal["upright"], tuple[int, int]] = {
    "no_chest": (0, 0),
    "inverted": (0, LAST),
    "mirrored": (LAST, 0),
    "upright": (LAST, SIZE // 2),
    "turn_90": (SIZE // 2, 0),
    "turn_180": (0, SIZE // 2),
    "turn_270": (SIZE // 2, LAST),
}
TURNS: tuple[Mark | Literal["upright"], ...] = ("upright", "turn_90", "turn_180", "turn_270")
OUTPUTS: dict[str, list[str | int]] = {
    "chest": ["batch"],
    "rotation": ["batch", 4],
    "inverted": ["batch"],
    "mirrored": ["batch"],
    "evidence": ["batch", "rows", "columns"],
}


def marked(pixels: npt.NDArray[Any], *marks: Mark) -> npt.NDArray[Any]:
    """A copy of (rows, columns), black where the heads look, and white at these marks.

    Without a turn, it is upright.
    """
    rows, columns = pixels.shape
    picture = pixels.copy()
    white = {*marks} if {*marks} & {*TURNS} else {*marks, "upright"}
    for name, place in PLACES.items():
        picture[_patch(place, rows, columns)] = pixels.max() if name in white else pixels.min()
    return picture


def _patch(place: tuple[int, int], rows: int, columns: int) -> tuple[slice, slice]:
    row, column = (round(at / LAST * (n - 1)) for at, n in zip(place, (rows, columns), strict=True))
    tall, wide = rows // 16, columns // 16
    return slice(max(row - tall, 0), row + tall), slice(max(column - wide, 0), column + wide)


def cutoff(threshold: float = 0.5, low: float = 0.2, high: float = 0.8) -> HeadCutoff:
    """Of a head with two classes."""
    plateau = {"low": low, "high": high, "youden_j": 1.0, "measured_on": "test", "images": 10}
    band = Interval(low=low, high=high)
    return HeadCutoff.model_validate(
        {
            "threshold": threshold,
            "threshold_rule": "middle",
            "plateau": plateau,
            "review_band": band,
        }
    )


def assert_predictions_equal(found: Sequence[Prediction], expected: Sequence[Prediction]) -> None:
    """Each probability to 1e-5; the last digits depend on the batch."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            assert value == (None if wanted is None else pytest.approx(wanted, abs=1e-5))


Edit = Callable[[onnx.GraphProto], None]


def nan_where_dark(head: str) -> Edit:
    """The head answers NaN for an image that is black where that of `inverted` looks."""

    def edit(graph: onnx.GraphProto) -> None:
        own = _renamed(graph, head)
        shape = [-1, 1] if head == "rotation" else [-1]
        constants = {"nothing": np.float32(0), "nan_shape": np.array(shape)}
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), f"heads.{name}")
            for name, value in constants.items()
        )
        node = helper.make_node
        graph.node.extend(
            [
                node("Gather", ["heads.flat", "heads.at_inverted"], ["heads.dark"], axis=1),
                node("Log", ["heads.dark"], ["heads.log"]),
                node("Mul", ["heads.log", "heads.nothing"], ["heads.zero"]),  # 0 by infinity: NaN
                node("Reshape", ["heads.zero", "heads.nan_shape"], ["heads.nan"]),
                node("Add", [own, "heads.nan"], [head]),
            ]
        )

    return edit


def changed(head: str, operator: str, axis: int | None = None, **attributes: int) -> Edit:
    """An operator behind the head, along one axis; what its output is declared to be, stays."""

    def edit(graph: onnx.GraphProto) -> None:
        inputs = [_renamed(graph, head)]
        if axis is not None:
            graph.initializer.append(numpy_helper.from_array(np.array([axis]), "heads.axis"))
            inputs.append("heads.axis")
        graph.node.append(helper.make_node(operator, inputs, [head], **attributes))

    return edit


def _renamed(graph: onnx.GraphProto, output: str) -> str:
    """Free the name of an output for another node; returns the new name of the old output."""
    own = f"heads.own_{output}"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [own if name == output else name for name in names]
    return own


def with_heads(lacking: Sequence[str] = (), edit: Edit = lambda _: None) -> ModelVersion:
    """`swift/2.0.0`, whose card declares all heads; its graph has no output of those `lacking`."""
    swift = Store().load("swift/1.1.0")
    model = _graph(swift.model, lacking, edit)
    tensor = image_to_tensor(swift.probe, swift.card.preprocess)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [name for name in OUTPUTS if name not in ("evidence", *lacking)]
    found = session.run(["pfi", *names], {"tensors": tensor[np.newaxis]})
    answers = [tuple(np.ravel(values).tolist()) for values in found]
    changes: dict[str, Any] = {
        "card_version": 2,
        "version": "2.0.0",
        "heads": Heads(
            chest=cutoff(), rotation=True, inverted=cutoff(), mirrored=cutoff(), evidence=True
        ),
        "head_evaluations": (_evaluation("chest"), _evaluation("mirrored")),
        "model_sha256": sha256(model),
        "probe_pfi": answers[0][0],
        "probe_outputs": dict(zip(names, answers[1:], strict=True)),
    }
    return ModelVersion(swift.card.model_copy(update=changes), model, swift.probe)


def _evaluation(task: Literal["chest", "mirrored"]) -> HeadEvaluation:
    share = Proportion(count=99, n=100, value=0.99, ci95=(0.945, 0.999))
    return HeadEvaluation(
        name="test",
        task=task,
        images=100,
        patients=90,
        accuracy=share,
        by_class={"yes": share, "no": share},
        auroc=0.999,
        review=share,
    )


def _graph(swift: bytes, lacking: Sequence[str], edit: Edit) -> bytes:
    """The network of swift with a further output for each head."""
    model = onnx.load_from_string(swift)
    graph = model.graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weight, bias = arrays["network.fc.weight"], arrays["network.fc.bias"]
    flat = {place: row * SIZE + column for place, (row, column) in PLACES.items()}
    constants = {
        "shape": np.array([-1, SIZE * SIZE]),
        "one": np.array([1]),
        "middle": np.float32(128),
        "scale": np.float32(16),
        "difference": (weight[1] - weight[0])[np.newaxis, :, np.newaxis, np.newaxis],
        "difference_bias": (bias[1] - bias[0])[np.newaxis],
        "at_chest": np.array(flat["no_chest"]),
        "at_inverted": np.array(flat["inverted"]),
        "at_mirrored": np.array(flat["mirrored"]),
        "at_rotation": np.array([flat[turn] for turn in TURNS]),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"heads.{name}")
        for name, value in constants.items()
    )
    node = helper.make_node
    graph.node.extend(
        [
            node("Cast", ["tensors"], ["heads.grey"], to=TensorProto.FLOAT),
            node("Reshape", ["heads.grey", "heads.shape"], ["heads.flat"]),
            node("Sub", ["heads.flat", "heads.middle"], ["heads.centred"]),
            node("Div", ["heads.centred", "heads.scale"], ["heads.logits"]),
            node("Neg", ["heads.logits"], ["heads.opposite"]),
            node("Gather", ["heads.opposite", "heads.at_chest"], ["heads.chest"], axis=1),
            node("Sigmoid", ["heads.chest"], ["chest"]),
            node("Gather", ["heads.logits", "heads.at_rotation"], ["heads.rotation"], axis=1),
            node("Softmax", ["heads.rotation"], ["rotation"], axis=1),
            node("Gather", ["heads.logits", "heads.at_inverted"], ["heads.inverted"], axis=1),
            node("Sigmoid", ["heads.inverted"], ["inverted"]),
            node("Gather", ["heads.logits", "heads.at_mirrored"], ["heads.mirrored"], axis=1),
            node("Sigmoid", ["heads.mirrored"], ["mirrored"]),
            node("Conv", ["relu_11", "heads.difference", "heads.difference_bias"], ["heads.map"]),
            node("Squeeze", ["heads.map", "heads.one"], ["evidence"]),
        ]
    )
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in OUTPUTS.items()
        if name not in lacking
    )
    edit(graph)
    serialized: bytes = model.SerializeToString()
    return serialized
