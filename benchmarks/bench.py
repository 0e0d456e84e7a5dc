"""What the sections of the throughput benchmark share: the plan, the inputs, one measurement."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from companion import Companion
from inputs import Bodies
from load import Outcome, percentile
from servers import Peak, Server

from service.inference import usable_cpus

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int = 5  # of which medians are taken; systems take turns within a round
    seconds: float = 3  # the service in one round
    rival_seconds: float = 2
    rival_images: int = 16  # and at least so many at concurrency 8
    litserve_workers: tuple[int, ...] = (1, 2)  # to choose from
    part_seconds: float = 0.4  # one part alone in one round
    lane_seconds: float = 8
    overload_seconds: float = 8


QUICK = Plan(1, 1, 1, 4, (1,), 0.2, 3, 3)
CONNECTIONS = (1, 8, 32)
RIVAL_CONNECTIONS = (1, 8)


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark."""

    plan: Plan
    bodies: Bodies
    models: tuple[str, ...]
    rivals_python: Path
    generator: Companion
    cores: int = field(default_factory=usable_cpus)

    def files(self, *names: str) -> list[str]:
        """The files of these syntaxes, in turn; of all by default."""
        chosen = [self.bodies[name] for name in names or self.bodies]
        return [str(path) for same in zip(*chosen, strict=True) for path in same]

    def measure(self, servers: Sequence[Server], **load: Any) -> Measured:
        """One run of the load against servers that hold still before and after."""
        for server in servers:
            server.resume()
        before, machine = sum(server.cpu_s() for server in servers), _machine_s()
        with Peak(servers) as peak:
            ports = [server.port for server in servers]
            load.setdefault("target", servers[0].target)
            outcome = Outcome(self.generator.ask(ports=ports, **load))
        cpu_s = sum(server.cpu_s() for server in servers) - before
        busy_s, interrupts_s = (
            after - at_first for after, at_first in zip(_machine_s(), machine, strict=True)
        )
        others_s = busy_s - interrupts_s - cpu_s - outcome.cpu_s
        for server in servers:
            server.pause()
        return Measured(outcome, cpu_s, interrupts_s, max(0.0, others_s), peak.rss_bytes)


def _machine_s() -> tuple[float, float]:
    """CPU seconds that have been used, and those of them that interrupts used.

    The kernel takes packets in while it serves an interrupt, and charges that to no process.
    """
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    interrupts = getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return sum(times) - idle, interrupts


@dataclass(frozen=True)
class Measured:
    """What the load generator saw, and what the servers used meanwhile."""

    outcome: Outcome
    cpu_s: float
    interrupts_s: float  # of the whole machine, in which nothing else sends or receives much
    others_s: float  # CPU seconds of all other processes: on a quiet machine next to none
    peak_rss_bytes: int


def row_of(rounds: Sequence[Measured]) -> Row:
    """One system at one concurrency: a value a round, latencies of all rounds together."""
    outcomes = [each.outcome for each in rounds]
    latencies = [seconds for outcome in outcomes for seconds in outcome.latencies_s]
    return {
        "images_s": [rounded(outcome.images_s) for outcome in outcomes],
        "cpu_s": [rounded(each.cpu_s / max(1, len(each.outcome.good))) for each in rounds],
        "interrupts_s": [
            rounded(each.interrupts_s / max(1, len(each.outcome.good))) for each in rounds
        ],
        "generator_share": [rounded(outcome.share_of_cpu) for outcome in outcomes],
        "others_share": [rounded(each.others_s / each.outcome.elapsed_s) for each in rounds],
        **latencies_of(latencies),
        "refused": sum(outcome.statuses[503] for outcome in outcomes),
        "errors": sum(outcome.errors for outcome in outcomes),
        "peak_rss_mb": round(max(each.peak_rss_bytes for each in rounds) / 1e6),
    }


def latencies_of(latencies_s: Sequence[float]) -> Row:
    """Percentiles and n; None where nothing was answered."""
    shares = {"p50_s": 0.5, "p99_s": 0.99}
    found: Row = {
        name: rounded(percentile(latencies_s, share)) if latencies_s else None
        for name, share in shares.items()
    }
    return {**found, "n": len(latencies_s)}


def rounded(value: float) -> float:
    """Four digits that count, so that the results can be read."""
    return float(f"{value:.4g}")


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def say(text: str) -> None:
    """Progress."""
    print(text, flush=True)
