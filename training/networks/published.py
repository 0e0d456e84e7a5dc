"""A published version as the start of another training: its weights, read from its ONNX graph."""

from __future__ import annotations

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from model_store import ModelVersion
from training.networks.heads import HEADS, Head, HeadLayer, by_head

PREFIX = "network."  # of the parameters' names in the graph
HEADS_LAYER = ("fc.weight", "fc.bias")
FRESH = ("aux", "hint", "fc.certainty")  # begin the names of what is not taken over


def start_from(network: nn.Module, version: ModelVersion, sample: Tensor) -> None:
    """Give a network the trunk and the heads of a published version; other heads stay fresh.

    Exported convolutions hold their batch normalisation. So that each normalisation can be trained
    again, it gets the mean and the spread that `sample` shows there, and undoes them: in evaluation
    the network answers as the version does.

    Args:
        network: Of the version's architecture; its heads may be others, in any order.
        version: Of the model store.
        sample: (B, 1, S, S) of 0..255, such images as will train.

    Raises:
        ValueError: The version has another architecture, or its weights are integers.
    """
    graph = onnx.load_from_string(version.model).graph
    found = {
        each.name.removeprefix(PREFIX): torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in graph.initializer
    }
    normalised = _normalised(network)
    state = network.state_dict()
    for name, own in state.items():
        if name.startswith(FRESH) or name.rpartition(".")[0] in normalised:
            continue
        weight = found.get(name)
        if name in HEADS_LAYER and weight is not None:
            given = by_head(weight[None], _heads_of_graph(graph))
            for head, rows in by_head(own[None], _heads_of_network(network)).items():
                rows.copy_(given.get(head, rows))
            continue
        if weight is None or weight.shape != own.shape:
            raise ValueError(f"{version.reference} has no {name} of shape {tuple(own.shape)}")
        own.copy_(weight)
    network.load_state_dict(state)
    biases = {name: found[f"{convolution}.weight_bias"] for name, convolution in normalised.items()}
    _normalise_as(network, biases, sample)


def _heads_of_network(network: nn.Module) -> tuple[Head, ...]:
    """The heads of a network in the order of its logits."""
    return network.fc.heads if isinstance(network.fc, HeadLayer) else ("view",)


def _heads_of_graph(graph: onnx.GraphProto) -> tuple[Head, ...]:
    """The same of a version: its outputs in the order of the logits, `pfi` that of the view."""
    names = [output.name for output in graph.output]
    return ("view", *(head for name in names for head in HEADS if head == name))


def _normalised(network: nn.Module) -> dict[str, str]:
    """Each batch normalisation, and the convolution before it."""
    pairs, last = dict[str, str](), ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[name] = last
    return pairs


def _normalise_as(network: nn.Module, biases: dict[str, Tensor], sample: Tensor) -> None:
    """Give all normalisations the statistics of a sample, so that each only adds its bias."""
    hooks = []
    for name, bias in biases.items():

        def settle(layer: nn.Module, inputs: tuple[Tensor, ...], bias: Tensor = bias) -> None:
            assert isinstance(layer, nn.BatchNorm2d)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)
            layer.weight.copy_((variance + layer.eps).sqrt())
            layer.bias.copy_(mean + bias)

        hooks.append(network.get_submodule(name).register_forward_pre_hook(settle))
    with torch.no_grad():
        network.eval()(sample)
    for hook in hooks:
        hook.remove()
