"""The network alone: images/s by batch, precision and way, and its share of what the device can."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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


class _Measure:
    """One part, as a function without arguments."""

    def __init__(
        self,
        plan: Plan,
        model: str,
        form: Form,
        way: Way,
        options: Options,
        batch: int,
        peaks: Found,
    ) -> None:
        self.plan, self.model, self.form = plan, model, form
        self.way, self.options, self.batch, self.peaks = way, options, batch, peaks

    def __call__(self) -> Found:
        version = version_in(self.model, self.form)
        network = opened(version, self.plan.device, self.options, self.batch)
        in_flight = 1
        if self.way == "served":
            in_flight = min(IN_FLIGHT, self.batch)  # batch 1 is for latency: one at a time
            shape = (self.batch, 1, *2 * (version.card.preprocess.size,))
            tensors = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
            bound = [network.bound(self.batch) for _ in range(in_flight)]
            works: list[Callable[[], object]] = [
                lambda one=one: one(tensors)  # type: ignore[misc]  # bound by default
                for one in bound
            ]
        else:
            resident = Resident(network, self.batch, self.plan.device)
            works = [resident]
        seconds, durations = _timed(works, self.plan.part_seconds)
        if self.way != "served":
            # By another session: a graph would be replayed, whatever the input
            plain = _plain(self.model, self.form, self.plan.device)
            _check(resident.pfi.numpy(), plain.pfi(resident.tensors))
        images_s = len(durations) * self.batch / seconds
        cost = cost_of(version.model, self.batch)
        return {
            "images_s": rounded(images_s),
            "p50_ms": rounded(1e3 * percentile(durations, 0.5)),
            "p99_ms": rounded(1e3 * percentile(durations, 0.99)),
            "n": len(durations),
            **_shares(self.form, images_s / self.batch, cost, self.peaks),
        }


@cache
def _plain(model: str, form: Form, device: Provider) -> Network:
    return opened(version_in(model, form), device, {})


def _timed(works: list[Callable[[], object]], seconds: float) -> tuple[float, list[float]]:
    """Wall seconds, and those of each call; each work is called by a thread of its own."""
    for work in works:
        for _ in range(WARM_UP):
            work()

    def repeat(work: Callable[[], object]) -> list[float]:
        durations = []
        while not durations or time.perf_counter() - began < seconds:
            since = time.perf_counter()
            work()
            durations.append(time.perf_counter() - since)
        return durations

    with ThreadPoolExecutor(len(works)) as threads:
        began = time.perf_counter()
        found = [one for each in threads.map(repeat, works) for one in each]
        return time.perf_counter() - began, found


def _check(found: np.ndarray, known: np.ndarray) -> None:
    """What was timed must have computed the answers.

    Raises:
        RuntimeError: It did not.
    """
    if not np.allclose(found, known, atol=5e-3):
        raise RuntimeError(f"a replay answers {found[:4]}, a plain run {known[:4]}")


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
        seconds = _median_seconds(lambda a=a, b=b: a @ b, device)
        found[f"operations_s_{name}"] = rounded(2 * plan.matmul_side**3 / seconds)
    source = torch.randint(256, (plan.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _median_seconds(lambda: target.copy_(source), device)
    return found | {"copied_bytes_s": rounded(2 * plan.copied_bytes / seconds)}


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
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
