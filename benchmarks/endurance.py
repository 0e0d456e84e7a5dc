"""More cores, more processes, and ten minutes of work."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import groupby

import numpy as np
import servers
from bench import Bench, Measured, Row, latencies_of, middle, rounded, row_of, say
from load import Answer, Outcome
from servers import Sampler, Server

SCALING_SYNTAX = "jpeg2000"
SCALING_CONNECTIONS = 16
SOAK_SHARE = 0.9  # of the capacity measured just before
CAPACITY_SECONDS = 60
SOAK_CONNECTIONS = 64
# Each queue that is longer than all before needs memory, which the allocator keeps. An overload
# makes the longest that the limits allow; what grows after that is a leak
FILL, FILL_SECONDS = 2.5, 60  # times the capacity
RSS_SECONDS = 1.0


def scaling(bench: Bench, model: str) -> dict[str, Row]:
    """By processes and the cores that they may use: images/s of one syntax."""
    every = list(range(bench.cores))
    shapes: dict[str, list[list[int]]] = {
        "1 process on 1 core": [every[:1]],
        f"1 process on {bench.cores} cores": [every],
        f"{bench.cores} processes on a core each": [[core] for core in every],
    }
    name = SCALING_SYNTAX if SCALING_SYNTAX in bench.bodies else next(iter(bench.bodies))
    load = {"bodies": bench.files(name), "connections": SCALING_CONNECTIONS}
    rounds: dict[str, list[Measured]] = {shape: [] for shape in shapes}
    with ExitStack() as stack:
        running = {
            shape: [
                stack.enter_context(
                    servers.running(servers.service(model, **servers.AMPLE_LIMITS), cpus)
                )
                for cpus in processes
            ]
            for shape, processes in shapes.items()
        }
        for group in running.values():
            bench.measure(group, **load, seconds=0, images=16)
        for _ in range(bench.plan.rounds):
            for shape, group in running.items():
                rounds[shape].append(bench.measure(group, **load, seconds=bench.plan.seconds))
    found = {shape: row_of(each) for shape, each in rounds.items()}
    for shape, row in found.items():
        say(f"scaling, {model}, {name}, {shape}: {middle(row['images_s']):.1f} images/s")
    return found


def soak(bench: Bench, model: str, minutes: float) -> Row:
    """Memory and latency at 90 % load, by minute; all syntaxes, evenly spaced.

    The capacity is that of a minute, with few enough connections that none is refused.
    """
    few = {"bodies": bench.files(), "connections": 16}
    load = {"bodies": bench.files(), "connections": SOAK_CONNECTIONS}
    with servers.running(servers.service(model)) as server:
        bench.measure([server], **few, seconds=0, images=32)
        capacity = bench.measure([server], **few, seconds=CAPACITY_SECONDS).outcome.images_s
        bench.measure([server], **load, seconds=FILL_SECONDS, rate=FILL * capacity)
        rate = SOAK_SHARE * capacity
        say(f"soak, {model}: {rate:.1f} images/s for {minutes:g} minutes")
        with Watch(server) as watch:
            outcome = bench.measure([server], **load, seconds=60 * minutes, rate=rate).outcome
    row = {
        "minutes": minutes,
        "capacity": rounded(capacity),
        "rate": rounded(rate),
        "filled_at": FILL,
        "refused": outcome.statuses[503],
        "errors": outcome.errors,
        **latencies_of(outcome.latencies_s),
        "by_minute": by_minute(outcome),
        **watch.growth(),
    }
    say(f"soak, {model}: {row['errors']} errors, {row['rss_mb_a_minute']:+.2f} MB a minute")
    return row


def by_minute(outcome: Outcome) -> list[Row]:
    """Percentiles of the images that were due in each minute."""

    def minute(answer: Answer) -> int:
        return int(answer.sent_s // 60)

    ordered = sorted(outcome.good)
    return [
        latencies_of([answer.latency_s for answer in same]) for _, same in groupby(ordered, minute)
    ]


class Watch(Sampler):
    """Resident memory through a block, a value a second."""

    def __init__(self, server: Server) -> None:
        super().__init__(lambda: self.rss_mb.append(server.rss_bytes() / 1e6), RSS_SECONDS)
        self.rss_mb: list[float] = []

    def growth(self) -> Row:
        """First, last and peak; the slope leaves the first fifth out, in which pools fill."""
        settled = np.array(self.rss_mb[len(self.rss_mb) // 5 :])
        minutes = np.arange(len(settled)) * RSS_SECONDS / 60
        slope = float(np.polyfit(minutes, settled, 1)[0]) if len(settled) > 1 else 0.0
        return {
            "rss_mb_first": round(float(settled[0])),
            "rss_mb_last": round(float(settled[-1])),
            "rss_mb_peak": round(max(self.rss_mb)),
            "rss_mb_a_minute": rounded(slope),
        }
