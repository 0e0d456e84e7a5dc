"""Networks in ONNX Runtime: fp32 and fp16, with buffers that stay on the device, and as graphs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import onnxruntime

from gpu_stages.plan import Options
from model_store import ModelVersion, Store
from service.inference import Network, Provider
from service.inference.network import CUDA_OPTIONS, PROVIDERS
from training.export.quantize.fp16 import to_fp16

Form = Literal["fp32", "fp16"]
FORMS: tuple[Form, ...] = ("fp16", "fp32")
OPTIONS: dict[Provider, Options] = {"cpu": {}, "cuda": CUDA_OPTIONS, "tensorrt": {}}
BATCH = "batch"  # the free dimension of a published graph


@cache
def version_in(model: str, form: Form) -> ModelVersion:
    """A published version, or its half-precision form as `derive --form fp16` makes it."""
    version = Store().load(model)
    return version if form == "fp32" else replace(version, model=to_fp16(version.model))


def opened(
    version: ModelVersion, provider: Provider, options: Options, batch: int | None = None
) -> Network:
    """A network that runs on this provider and on no other; `batch` fixes its batch size.

    Raises:
        RuntimeError: ONNX Runtime fell back to another provider.
    """
    onnxruntime.preload_dlls()  # of CUDA; without it there are none to load
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    if batch:
        settings.add_free_dimension_override_by_name(BATCH, batch)
    name = PROVIDERS[provider]
    session = onnxruntime.InferenceSession(
        version.model, settings, providers=[(name, OPTIONS[provider] | options)]
    )
    if session.get_providers()[0] != name:
        raise RuntimeError(f"{name} cannot be loaded; in use: {session.get_providers()}")
    return Network(version, session, provider, 1)


class Resident:
    """Runs one batch again and again, whose input and output stay on the device.

    So a CUDA graph, which always reads and writes the same addresses, can be replayed.

    Args:
        network: With a fixed batch size.
        batch: That size.
        device: Where the buffers are.
    """

    def __init__(self, network: Network, batch: int, device: str) -> None:
        self._session = network.session
        size = network.version.card.preprocess.size
        random = np.random.default_rng(1)
        tensors = random.integers(0, 256, (batch, 1, size, size)).astype(np.uint8)
        value = onnxruntime.OrtValue
        self._input = value.ortvalue_from_numpy(tensors, device, 0)
        self.pfi = value.ortvalue_from_numpy(np.full(batch, -1, np.float32), device, 0)
        self.tensors = tensors
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("tensors", self._input)
        self._binding.bind_ortvalue_output("pfi", self.pfi)

    def __call__(self) -> None:
        """One batch; returns when it is done."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
