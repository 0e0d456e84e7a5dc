"""ONNX Runtime: open a model version, prove it, run batches of tensors."""

from service.inference.batcher import Batcher, BatcherClosedError, BatchReport, QueueFullError
from service.inference.network import (
    Network,
    NetworkError,
    ProbeError,
    Provider,
    ProviderError,
    open_network,
)

__all__ = [
    "BatchReport",
    "Batcher",
    "BatcherClosedError",
    "Network",
    "NetworkError",
    "ProbeError",
    "Provider",
    "ProviderError",
    "QueueFullError",
    "open_network",
]
