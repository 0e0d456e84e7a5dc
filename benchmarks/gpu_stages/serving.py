"""End to end over HTTP, by transfer syntax and decode workers: images/s, and what stops them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import inputs
import psutil
import servers
from bench import middle, rounded
from companion import Companion, load_generator, parts
from load import Outcome
from servers import Sampler, Server

from gpu_stages.plan import Plan
from gpu_stages.record import FAILED, Found, Record

SUMS = re.compile(r'^cxrview_stage_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)
CALLS = re.compile(r"^cxrview_batch_images_(sum|count) (\S+)$", re.MULTILINE)
BUSY = re.compile(r"^cxrview_gpu_utilization_ratio (\S+)$", re.MULTILINE)
SAMPLE_SECONDS = 0.2
CORES_A_GENERATOR = 8  # more than one load generator where there are more cores
PART_SECONDS = 0.4


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """Inputs, decoding alone, then the service with fewer and fewer workers."""
    del data
    record.part("inputs", lambda: _inputs(plan))
    bodies = inputs.bodies(plan.syntaxes)
    _decoding(plan, record, bodies)
    for workers in plan.workers:
        for model in plan.models:
            names = plan.syntaxes if workers == plan.workers[0] else plan.few_syntaxes
            wanted = {f"{model}, {name}, {workers}": name for name in names}
            if wanted.keys() <= record.parts.keys():
                continue
            with ExitStack() as stack:
                server = stack.enter_context(_served(plan, model, workers))
                generators = [
                    stack.enter_context(load_generator())
                    for _ in range(max(1, len(os.sched_getaffinity(0)) // CORES_A_GENERATOR))
                ]
                for part, name in wanted.items():
                    one = _Run(plan, server, generators, bodies[name], workers)
                    alone = record.parts.get(f"decode, {name}, {workers}", {})
                    record.part(part, partial(one.measure, alone))


def _inputs(plan: Plan) -> Found:
    """Made by as many processes as there are syntaxes, as some encoders are slow."""
    with ProcessPoolExecutor(min(len(plan.syntaxes), os.cpu_count() or 1)) as pool:
        list(pool.map(inputs.bodies, [(name,) for name in plan.syntaxes]))
    return {"syntaxes": len(plan.syntaxes)}


def _decoding(plan: Plan, record: Record, bodies: inputs.Bodies) -> None:
    """CPU seconds an image in so many processes at once: the limit of so many workers."""
    with ExitStack() as stack:
        every: list[Companion] = [stack.enter_context(parts()) for _ in range(max(plan.workers))]
        for name, files in bodies.items():
            for workers in plan.workers:
                if workers != plan.workers[0] and name not in plan.few_syntaxes:
                    continue
                record.part(
                    f"decode, {name}, {workers}",
                    partial(_decoded, plan, every[:workers], files),
                )


def _decoded(plan: Plan, some: Sequence[Companion], files: list[Path]) -> Found:
    paths = [str(path) for path in files]
    for each in some:
        each.send(part="decode", model=plan.models[-1], paths=paths, seconds=PART_SECONDS)
    answers = [each.receive() for each in some]
    wall = middle([answer["wall_s"] for answer in answers])
    return {
        "cpu_ms": rounded(1e3 * middle([answer["cpu_s"] for answer in answers])),
        "images_s": rounded(len(some) / wall),
    }


def _served(plan: Plan, model: str, workers: int) -> AbstractContextManager[Server]:
    settings = servers.AMPLE_LIMITS | {
        "provider": plan.device,
        "decode_workers": workers,
        "max_batch_images": plan.served_batch,
    }
    return servers.running(servers.service(model, **settings))


class _Run:
    """One server under the load of one syntax."""

    def __init__(
        self,
        plan: Plan,
        server: Server,
        generators: list[Companion],
        files: list[Path],
        workers: int,
    ) -> None:
        self.server, self.generators, self.workers = server, generators, workers
        self.seconds = plan.serving_seconds
        self.load = {
            "ports": [server.port],
            "target": server.target,
            "bodies": [str(path) for path in files],
            "connections": max(1, workers * plan.connections_per_worker // len(generators)),
        }

    def measure(self, alone: Found) -> Found:
        """Warm up, measure, and compare with decoding alone."""
        self._send(images=4, seconds=0)
        busy: list[float] = []
        before, cpu = self._metrics(), self.server.cpu_s()
        psutil.cpu_percent()
        with Sampler(lambda: busy.extend(self._busy()), SAMPLE_SECONDS):
            outcomes = self._send(images=4, seconds=self.seconds)
        machine = psutil.cpu_percent() / 100
        images_s = sum(outcome.images_s for outcome in outcomes)
        good = sum(len(outcome.good) for outcome in outcomes)
        changes = {name: after - before.get(name, 0.0) for name, after in self._metrics().items()}
        calls, run = changes.pop("count"), changes.pop("sum")
        waits = {name: rounded(1e3 * value / max(1, good)) for name, value in changes.items()}
        found = {
            "images_s": rounded(images_s),
            "errors": sum(outcome.errors for outcome in outcomes),
            "cpu_ms": rounded(1e3 * (self.server.cpu_s() - cpu) / max(1, good)),
            "machine_share": rounded(machine),
            "generator_cores": rounded(sum(outcome.share_of_cpu for outcome in outcomes)),
            "gpu_busy": rounded(max(busy)) if busy else None,
            "images_a_batch": rounded(run / max(1, calls)),
            "stage_ms": waits,
            "longest_stage": max(waits, key=waits.__getitem__),
        }
        if alone and FAILED not in alone:
            found["of_decoding"] = rounded(images_s / alone["images_s"])
        return found

    def _send(self, **how: float) -> list[Outcome]:
        for generator in self.generators:
            generator.send(**self.load, **how)
        return [Outcome(generator.receive()) for generator in self.generators]

    def _text(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.server.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def _metrics(self) -> dict[str, float]:
        text = self._text()
        pairs = [*SUMS.findall(text), *CALLS.findall(text)]
        return {name: float(value) for name, value in pairs}

    def _busy(self) -> list[float]:
        """The device's share of time; a CPU has no such metric."""
        return [float(value) for value in BUSY.findall(self._text())]
