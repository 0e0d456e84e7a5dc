"""The network alone: images/s by batch, precision and way, and its share of what the device can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from bench import middle, rounded
from load import percentile

from gpu_stages.costs import cost_of
from gpu_stages.plan import Options, Plan, Way
from gpu_stages.record import FAILED, Found, Record
from gpu_stages.sessions import FORMS, Form, Resident, opened, version_in
from service.inference import Network, Provider
from service.inference.local_pipeline import IN_FLIGHT

Work = Callable[[], object]

WARM_UP = 3  # calls: the second captures a graph, the third replays it
# Of matrix products: the type, and what PyTorch may round float32 to
PRECISIONS = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
}
PEAK: dict[Form, str] = {"fp32": "tf32", "fp16": "fp16"}  # ONNX Runtime rounds fp32 to tf32
TIMES = 5  # of each part of the roofline, of which the median is taken


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """The roofline first, then what the goals are about: the first model in fp16."""
    del data
    peaks = record.part("roofline", lambda: roofline(plan))
    for model in plan.models:
        for form in FORMS:
            for way, options in plan.ways:
                fully = "graph" in way or way == "served"
                for batch in plan.batches if fully else plan.few_batches:
                    measure = _Measure(plan, model, form, way, options, batch, peaks)
                    record.part(f"{model}, {form}, {way}, {batch}", measure)


@dataclass(frozen=True)
class _Measure:
    """One part, as a function without arguments."""

    plan: Plan
    model: str
    form: Form
    way: Way
    options: Options
    batch: int
    peaks: Found

    def __call__(self) -> Found:
        version = version_in(self.model, self.form)
        network = opened(version, self.plan.device, self.options, self.batch)
        works, check = (self._served if self.way == "served" else self._resident)(network)
        seconds, durations = _timed(works, self.plan.part_seconds)
        check()
        images_s = len(durations) * self.batch / seconds
        cost = cost_of(version.model, self.batch)
        return {
            "images_s": rounded(images_s),
            "p50_ms": rounded(1e3 * percentile(durations, 0.5)),
            "p99_ms": rounded(1e3 * percentile(durations, 0.99)),
            "n": len(durations),
            **_shares(self.form, images_s / self.batch, cost, self.peaks),
        }

    def _served(self, network: Network) -> tuple[list[Work], Work]:
        """As in the service: several batches in flight, but for batch 1, which is for latency."""
        size = network.version.card.preprocess.size
        random = np.random.default_rng(1)
        tensors = random.integers(0, 256, (self.batch, 1, size, size)).astype(np.uint8)
        bound = [network.bound(self.batch) for _ in range(min(IN_FLIGHT, self.batch))]
        return [partial(one, tensors) for one in bound], lambda: None

    def _resident(self, network: Network) -> tuple[list[Work], Work]:
        """What was timed must have computed the answers."""
        resident = Resident(network, self.batch, self.plan.device)

        def check() -> None:
            # By another session: a graph would be replayed, whatever the input
            plain = _plain(self.model, self.form, self.plan.device)
            found, known = resident.pfi.numpy(), plain.pfi(resident.tensors)
            if not np.allclose(found, known, atol=5e-3):
                raise RuntimeError(f"a replay answers {found[:4]}, a plain run {known[:4]}")

        return [resident], check


@cache
def _plain(model: str, form: Form, device: Provider) -> Network:
    return opened(version_in(model, form), device, {})


def _timed(works: list[Work], seconds: float) -> tuple[float, list[float]]:
    """Wall seconds of all, and those of each call.

    Each work has a thread of its own, which also warms it up: ONNX Runtime keeps a graph for the
    thread that captured it.
    """
    warm = threading.Barrier(len(works))

    def repeat(work: Work) -> tuple[float, float, list[float]]:
        for _ in range(WARM_UP):
            work()
        warm.wait()
        durations: list[float] = []
        began = now = time.perf_counter()
        while not durations or now - began < seconds:
            work()
            since, now = now, time.perf_counter()
            durations.append(now - since)
        return began, now, durations

    with ThreadPoolExecutor(len(works)) as threads:
        found = list(threads.map(repeat, works))
    wall = max(each[1] for each in found) - min(each[0] for each in found)
    return wall, [one for each in found for one in each[2]]


def _shares(form: Form, batches_s: float, cost: tuple[int, int], peaks: Found) -> Found:
    """Of the operations/s and bytes/s measured on this device; the larger one is the limit."""
    if FAILED in peaks:
        return {}
    operations, moved = cost
    return {
        "arithmetic_share": rounded(batches_s * operations / peaks[f"operations_s_{PEAK[form]}"]),
        "memory_share": rounded(batches_s * moved / peaks["copied_bytes_s"]),
    }


def roofline(plan: Plan) -> Found:
    """Operations/s of a large matrix product, and bytes/s of a copy, read and written."""
    device = torch.device(plan.device)
    found: Found = {}
    for name, (kind, rounding) in PRECISIONS.items():
        torch.set_float32_matmul_precision(rounding)
        # Random: products of zeros need less power, and are faster
        a, b = torch.randn(2, plan.matmul_side, plan.matmul_side, device=device).to(kind)
        seconds = _median_seconds(partial(torch.matmul, a, b), device)
        found[f"operations_s_{name}"] = rounded(2 * plan.matmul_side**3 / seconds)
    source = torch.randint(256, (plan.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _median_seconds(lambda: target.copy_(source), device)
    return found | {"copied_bytes_s": rounded(2 * plan.copied_bytes / seconds)}


def _median_seconds(work: Work, device: torch.device) -> float:
    accelerator = torch.get_device_module(device)
    work()
    durations = []
    for _ in range(TIMES):
        accelerator.synchronize()
        began = time.perf_counter()
        work()
        accelerator.synchronize()
        durations.append(time.perf_counter() - began)
    return middle(durations)
