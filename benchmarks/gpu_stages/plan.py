"""How much is measured: in full on a GPU, or every line once on a CPU.

The device is a value of the plan, so both plans run the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import inputs

from service.inference import Provider

Way = Literal["served", "resident", "graph", "channels last", "graph, channels last"]
Precision = Literal["fp32", "tf32", "bf16"]
Options = dict[str, str]

# Of ONNX Runtime's CUDA provider. `served` is what the service does: its buffer is page-locked, and
# its batches overlap. In the other ways, inputs and outputs stay on the device
WAYS_ON_CUDA: dict[Way, Options] = {
    "served": {},
    "resident": {},
    "graph": {"enable_cuda_graph": "1"},
    "channels last": {"prefer_nhwc": "1"},
    "graph, channels last": {"enable_cuda_graph": "1", "prefer_nhwc": "1"},
}


@dataclass(frozen=True)
class TrainedStep:
    """One way to train that is measured."""

    batch: int
    precision: Precision
    compiled: bool = False

    @property
    def name(self) -> str:
        """The key of its results."""
        return f"{self.batch}, {self.precision}{', compiled' if self.compiled else ''}"


@dataclass(frozen=True)
class Plan:
    """What is measured and how long. Times are seconds."""

    name: str = "full"
    device: Literal["cpu", "cuda"] = "cuda"  # of PyTorch and of the service
    models: tuple[str, ...] = ("googlenet/1.1.0", "swift/1.1.0")
    patience: float = 1.0  # times LIMITS

    # parity
    providers: tuple[Provider, ...] = ("cuda", "tensorrt")
    made_images: int = 64

    # network
    ways: tuple[tuple[Way, Options], ...] = tuple(WAYS_ON_CUDA.items())
    batches: tuple[int, ...] = (1, 4, 16, 32, 64, 128, 256)
    few_batches: tuple[int, ...] = (1, 32, 256)  # of the ways without a graph
    part_seconds: float = 0.4
    matmul_side: int = 8192
    copied_bytes: int = 4 * 2**30

    # serving
    syntaxes: tuple[str, ...] = inputs.NAMES
    few_syntaxes: tuple[str, ...] = ("jpeg2000", "uncompressed", "png")  # of the other shapes
    # Processes and decode workers of each; the first two are measured with all syntaxes. A process
    # receives in one thread, which docs/scaling.md predicts to be the limit for large bodies
    shapes: tuple[tuple[int, int], ...] = ((4, 4), (1, 16), (1, 8), (1, 4), (1, 2), (1, 1))
    served_batch: int = 32  # CXRVIEW_MAX_BATCH_IMAGES
    connections_per_worker: int = 4
    serving_seconds: float = 1.5

    # training
    steps: tuple[TrainedStep, ...] = (
        TrainedStep(256, "bf16"),
        TrainedStep(64, "bf16"),
        TrainedStep(256, "tf32"),
        TrainedStep(64, "fp32"),
        TrainedStep(24, "bf16"),
        TrainedStep(512, "bf16"),
        TrainedStep(256, "bf16", compiled=True),  # compilation takes a minute
        TrainedStep(64, "bf16", compiled=True),
    )
    compiler: tuple[tuple[str, str], ...] = (("backend", "inductor"), ("mode", "reduce-overhead"))
    timed_steps: int = 20
    training_side: int = 256
    children_images: int = 8  # each with its 106 children

    # fit
    fit_words: tuple[str, ...] = ("--steps", "1500", "--batch", "24", "--check-every", "150")
    made_patients: int = 40  # of each view, where no data was brought
    made_side: int = 512  # pixels


FULL = Plan()
MINIATURE = Plan(
    name="miniature",
    device="cpu",
    patience=10.0,
    providers=("cpu",),
    made_images=4,
    ways=tuple((way, {}) for way in WAYS_ON_CUDA),
    batches=(1, 2),
    few_batches=(1,),
    part_seconds=0.02,
    matmul_side=256,
    copied_bytes=2**24,
    syntaxes=("png", "jpeg-baseline"),
    few_syntaxes=("png",),
    shapes=((2, 1), (1, 2), (1, 1)),
    served_batch=4,
    connections_per_worker=1,
    serving_seconds=0.5,
    steps=(TrainedStep(2, "bf16"), TrainedStep(1, "fp32", compiled=True)),
    # Traces the network and its gradients as Inductor would, without its minute of C++ compilation
    compiler=(("backend", "aot_eager"),),
    timed_steps=1,
    training_side=64,
    children_images=1,
    fit_words=(
        *("--network", "swift", "--size", "64", "--steps", "4", "--batch", "4"),
        *("--check-every", "2", "--children", "1"),
    ),
    made_patients=12,
    made_side=96,
)
# Seconds of each stage. The last gets what the others leave
LIMITS = {
    "environment": 60,
    "parity": 90,
    "network": 170,
    "serving": 220,
    "training": 130,
    "fit": 600,
}
