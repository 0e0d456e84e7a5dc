"""Metrics of the GPU that the network runs on, read from NVML at each scrape."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.inference import Provider

Read = Callable[[GaugeMetricFamily, Any], None]  # adds what it reads from NVML's handle


class Gpu(Collector):
    """Metrics of the GPU; absent if no GPU is used, or if NVML is missing or fails.

    NVML is NVIDIA's monitoring library; it comes with the driver, not with this package.
    """

    def __init__(self) -> None:
        self._device: Any = None  # NVML's device handle

    def watch(self, provider: Provider) -> None:
        """Report the GPU that a provider uses; nothing for `cpu`."""
        self._device = None if provider == "cpu" else _first_visible()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metric families, without values."""
        return [family for family, _ in _families()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values that can be read now; errors of NVML never fail a scrape."""
        if self._device is None:
            return
        import pynvml

        for family, read in _families():
            try:
                read(family, self._device)
            except pynvml.NVMLError:  # for example a MIG instance has no utilisation
                continue
            yield family


def _families() -> list[tuple[GaugeMetricFamily, Read]]:
    utilization = GaugeMetricFamily(
        "cxrview_gpu_utilization_ratio",
        "Share of the last second or less in which the GPU computed anything; absent without one.",
    )
    memory = GaugeMetricFamily(
        "cxrview_gpu_memory_bytes",
        "Memory of the GPU: used, by all its processes, and total; absent without one.",
        labels=["kind"],
    )
    return [(utilization, _read_utilization), (memory, _read_memory)]


def _read_utilization(family: GaugeMetricFamily, device: Any) -> None:
    import pynvml

    family.add_metric([], pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)


def _read_memory(family: GaugeMetricFamily, device: Any) -> None:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    family.add_metric(["used"], memory.used)
    family.add_metric(["total"], memory.total)


def _first_visible() -> Any:
    """NVML's handle of CUDA device 0, on which ONNX Runtime runs; None without NVML."""
    try:
        import pynvml
    except ImportError:
        return None
    # CUDA only sees the GPUs of this list of indices or UUIDs; NVML ignores it
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    try:
        pynvml.nvmlInit()
        if first.isdecimal():
            return pynvml.nvmlDeviceGetHandleByIndex(int(first))
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    except pynvml.NVMLError:
        return None


GPU = Gpu()
REGISTRY.register(GPU)
