"""End to end over HTTP, by transfer syntax and decode workers: images/s, and what stops them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product
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
    """Inputs, decoding alone, then the service in each shape."""
    del data
    record.part("inputs", lambda: _inputs(plan))
    bodies = inputs.bodies(plan.syntaxes)
    _decoding(plan, record, bodies)
    for (processes, workers), model in product(plan.shapes, plan.models):
        wanted = {
            f"{model}, {name}, {processes} x {workers}": name
            for name in _syntaxes(plan, processes * workers)
        }
        if wanted.keys() <= record.parts.keys():
            continue
        with ExitStack() as stack:
            running = _served(plan, model, processes, workers, stack)
            generators = [
                stack.enter_context(load_generator())
                for _ in range(max(1, len(os.sched_getaffinity(0)) // CORES_A_GENERATOR))
            ]
            for part, name in wanted.items():
                one = _Run(plan, running, generators, bodies[name], processes * workers)
                alone = record.parts.get(f"decode, {name}, {processes * workers}", {})
                record.part(part, partial(one.measure, alone))


def _syntaxes(plan: Plan, workers: int) -> tuple[str, ...]:
    """All with most workers, else a few."""
    most = max(processes * each for processes, each in plan.shapes)
    return plan.syntaxes if workers == most else plan.few_syntaxes


def _inputs(plan: Plan) -> Found:
    """Made by as many processes as there are syntaxes, as some encoders are slow."""
    with ProcessPoolExecutor(min(len(plan.syntaxes), os.cpu_count() or 1)) as pool:
        list(pool.map(inputs.bodies, [(name,) for name in plan.syntaxes]))
    return {"syntaxes": len(plan.syntaxes)}


def _decoding(plan: Plan, record: Record, bodies: inputs.Bodies) -> None:
    """CPU seconds an image in so many processes at once: the limit of so many workers."""
    counts = sorted({processes * workers for processes, workers in plan.shapes}, reverse=True)
    with ExitStack() as stack:
        every: list[Companion] = [stack.enter_context(parts()) for _ in range(counts[0])]
        for workers in counts:
            for name in _syntaxes(plan, workers):
                record.part(
                    f"decode, {name}, {workers}",
                    partial(_decoded, plan, every[:workers], bodies[name]),
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


def _served(plan: Plan, model: str, processes: int, workers: int, stack: ExitStack) -> list[Server]:
    """All started at the same time, as a start on a GPU takes seconds."""
    settings = servers.AMPLE_LIMITS | {
        "provider": plan.device,
        "decode_workers": workers,
        "max_batch_images": plan.served_batch,
    }
    command = servers.service(model, **settings)
    with ThreadPoolExecutor(processes) as pool:
        contexts = [servers.running(command) for _ in range(processes)]
        return list(pool.map(stack.enter_context, contexts))


class _Run:
    """Servers under the load of one syntax."""

    def __init__(
        self,
        plan: Plan,
        running: list[Server],
        generators: list[Companion],
        files: list[Path],
        workers: int,
    ) -> None:
        self.running, self.generators = running, generators
        self.seconds = plan.serving_seconds
        self.load = {
            "ports": [server.port for server in running],
            "target": running[0].target,
            "bodies": [str(path) for path in files],
            "connections": max(1, workers * plan.connections_per_worker // len(generators)),
        }

    def measure(self, alone: Found) -> Found:
        """Warm up, measure, and compare with decoding alone."""
        self._send(images=4, seconds=0)
        busy: list[float] = []
        before, cpu = self._metrics(), self._cpu_s()
        psutil.cpu_percent()
        with Sampler(lambda: busy.extend(self._busy()), SAMPLE_SECONDS):
            outcomes = self._send(images=4, seconds=self.seconds)
        machine = psutil.cpu_percent() / 100
        images_s = sum(outcome.images_s for outcome in outcomes)
        good = sum(len(outcome.good) for outcome in outcomes)
        changes = {name: after - before[name] for name, after in self._metrics().items()}
        calls, run = changes.pop("count"), changes.pop("sum")
        waits = {name: rounded(1e3 * value / max(1, good)) for name, value in changes.items()}
        found = {
            "images_s": rounded(images_s),
            "errors": sum(outcome.errors for outcome in outcomes),
            "cpu_ms": rounded(1e3 * (self._cpu_s() - cpu) / max(1, good)),
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

    def _cpu_s(self) -> float:
        return sum(server.cpu_s() for server in self.running)

    def _texts(self) -> list[str]:
        addresses = [f"http://127.0.0.1:{server.port}/metrics" for server in self.running]
        return [urlopen(address, timeout=10).read().decode() for address in addresses]

    def _metrics(self) -> Counter[str]:
        """Sums over all servers."""
        found: Counter[str] = Counter()
        for text in self._texts():
            for name, value in (*SUMS.findall(text), *CALLS.findall(text)):
                found[name] += float(value)  # type: ignore[assignment]  # seconds
        return found

    def _busy(self) -> list[float]:
        """The device's share of time; a CPU has no such metric."""
        return [float(value) for text in self._texts()[:1] for value in BUSY.findall(text)]
