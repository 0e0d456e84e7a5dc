"""Errors of networks: those of a start, and of an answer."""

from __future__ import annotations


class NetworkError(Exception):
    """The model cannot serve; the process must not become ready."""


class ProviderError(NetworkError):
    """ONNX Runtime would run on another device than the requested one."""


class GraphError(NetworkError):
    """ONNX Runtime cannot open or run the model."""


class OutputError(NetworkError):
    """The model lacks an output of a head that its card declares, or it has another shape."""


class ProbeError(NetworkError):
    """The model's answer to its probe differs from the one in its card."""


class PredictionError(Exception):
    """The network's answer to one image is no probability: NaN, or outside 0..1."""
