"""Inference with ONNX Runtime: open and verify a model; decode and run images in batches."""

from service.inference.batcher import (
    Batcher,
    BatcherClosedError,
    BatchReport,
    Run,
    Runner,
    UnavailableError,
)
from service.inference.classification import Classification
from service.inference.cpus import usable_cpus
from service.inference.decode_messages import Limits, Reason
from service.inference.errors import (
    GraphError,
    NetworkError,
    OutputError,
    PredictionError,
    ProbeError,
    ProviderError,
)
from service.inference.explanation import Evidence, Explanation, Frame
from service.inference.fork_server import ForkServerError
from service.inference.lanes import LANES, NETWORK_NICENESS, STUCK_SECONDS, Lane
from service.inference.local_pipeline import open_pipeline
from service.inference.memory import keep_freed_memory
from service.inference.network import (
    CORE_BATCH_IMAGES,
    Network,
    Provider,
    Spread,
    open_network,
)
from service.inference.pipeline import Buffer, Image, Pipeline, Stage, let_go, prepare

__all__ = [
    "CORE_BATCH_IMAGES",
    "LANES",
    "NETWORK_NICENESS",
    "STUCK_SECONDS",
    "BatchReport",
    "Batcher",
    "BatcherClosedError",
    "Buffer",
    "Classification",
    "Evidence",
    "Explanation",
    "ForkServerError",
    "Frame",
    "GraphError",
    "Image",
    "Lane",
    "Limits",
    "Network",
    "NetworkError",
    "OutputError",
    "Pipeline",
    "PredictionError",
    "ProbeError",
    "Provider",
    "ProviderError",
    "Reason",
    "Run",
    "Runner",
    "Spread",
    "Stage",
    "UnavailableError",
    "keep_freed_memory",
    "let_go",
    "open_network",
    "open_pipeline",
    "prepare",
    "usable_cpus",
]
