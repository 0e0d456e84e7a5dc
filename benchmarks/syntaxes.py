"""End to end over HTTP, by syntax and model, beside its parts and the rivals, in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import servers
from bench import CONNECTIONS, RIVAL_CONNECTIONS, Bench, Measured, Row, middle, rounded, row_of, say
from companion import Companion, parts
from servers import Server

LITSERVE_CONNECTIONS = (8, 32)

Cost = dict[str, list[float]]  # CPU seconds an image by part, a value a round


@dataclass(frozen=True)
class System:
    """A server with a name, and how it is loaded."""

    name: str  # service, plain or litserve
    model: str
    server: Server
    connections: tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """All that runs: started once, held still when not measured."""

    receiver: Server
    systems: list[System]
    parts: list[Companion]  # one a core
    litserve_workers: dict[str, int]


def syntaxes(bench: Bench) -> Iterator[tuple[str, Row]]:
    """One syntax after another."""
    with _field(bench) as field:
        for name in bench.bodies:
            systems = [
                system for system in field.systems if system.name != "litserve" or name == "png"
            ]
            for system in systems:  # what a first request pays for is not measured
                bench.measure(
                    [system.server], bodies=bench.files(name), connections=4, seconds=0, images=4
                )
            yield name, _syntax(bench, field, systems, name)


@contextmanager
def _field(bench: Bench) -> Iterator[Field]:
    python = bench.rivals_python
    with ExitStack() as stack:

        def start(command: servers.Command) -> Server:
            server = stack.enter_context(servers.running(command))
            server.pause()
            return server

        receiver = start(servers.receiver())
        systems, workers = [], {}
        for model in bench.models:
            own = start(servers.service(model, **servers.AMPLE_LIMITS))
            systems.append(System("service", model, own, CONNECTIONS))
            plain = start(servers.plain(python, model))
            systems.append(System("plain", model, plain, RIVAL_CONNECTIONS))
            if "png" in bench.bodies:
                workers[model] = _better_workers(bench, model)
                litserve = start(servers.litserve(python, model, workers[model]))
                systems.append(System("litserve", model, litserve, LITSERVE_CONNECTIONS))
        companions = [stack.enter_context(parts()) for _ in range(bench.cores)]
        yield Field(receiver, systems, companions, workers)


def _better_workers(bench: Bench, model: str) -> int:
    """The number of workers that serves PNGs fastest here; an operator of LitServe would try it."""
    speeds = {}
    for workers in bench.plan.litserve_workers:
        command = servers.litserve(bench.rivals_python, model, workers)
        with servers.running(command) as server:
            load = {"bodies": bench.files("png"), "connections": 32}
            bench.measure([server], **load, seconds=0, images=16)
            measured = bench.measure([server], **load, seconds=bench.plan.seconds)
            speeds[workers] = measured.outcome.images_s
    say(f"LitServe, {model}: images/s by workers {speeds}")
    return max(speeds, key=speeds.__getitem__)


def _syntax(bench: Bench, field: Field, systems: list[System], name: str) -> Row:
    runs: dict[tuple[str, str, int], list[Measured]] = defaultdict(list)
    alone: dict[str, list[Measured]] = {"receive": []}
    costs: dict[str, Cost] = {
        model: {"decode": [], "network": [], "crowded": []} for model in bench.models
    }
    files = bench.files(name)
    for _ in range(bench.plan.rounds):
        load = {"bodies": files, "connections": 8, "seconds": bench.plan.seconds / 3}
        alone["receive"].append(bench.measure([field.receiver], **load))
        for model, cost in costs.items():
            _measure_parts(bench, field.parts, model, files, cost)
        for system in systems:
            for connections in system.connections:
                run = _end_to_end(bench, system, files, connections)
                runs[system.model, system.name, connections].append(run)
    found: Row = {
        "megabytes": rounded(_megabytes(bench, name)),
        "receive": row_of(alone["receive"]),
        "models": {},
    }
    for model, cost in costs.items():
        found["models"][model] = _model(bench, found["receive"], cost, model, runs)
        if name == "png":
            found["models"][model]["litserve_workers"] = field.litserve_workers[model]
    _report(name, found)
    return found


def _measure_parts(
    bench: Bench, companions: list[Companion], model: str, files: list[str], cost: Cost
) -> None:
    """Each alone; and decoding on all cores at once, which shows what they take from each other."""
    asked = {"model": model, "seconds": bench.plan.part_seconds}
    decoding = {"part": "decode", "paths": files, **asked}
    ran = companions[0].ask(part="network_served", **asked)
    alone = companions[0].ask(**decoding)
    for companion in companions:
        companion.send(**decoding)
    crowded = [companion.receive()["cpu_s"] for companion in companions]
    cost["decode"].append(rounded(alone["cpu_s"]))
    cost["network"].append(rounded(ran["cpu_s"]))
    cost["crowded"].append(rounded(middle(crowded)))


def _end_to_end(bench: Bench, system: System, files: list[str], connections: int) -> Measured:
    seconds, images = bench.plan.seconds, 0
    if system.name != "service":
        seconds, images = bench.plan.rival_seconds, bench.plan.rival_images
    if connections == 1:
        seconds, images = seconds / 2, images // 8
    return bench.measure(
        [system.server], bodies=files, connections=connections, seconds=seconds, images=images
    )


def _megabytes(bench: Bench, name: str) -> float:
    return sum(path.stat().st_size for path in bench.bodies[name]) / len(bench.bodies[name]) / 1e6


def _model(
    bench: Bench,
    receive: Row,
    cost: Cost,
    model: str,
    runs: dict[tuple[str, str, int], list[Measured]],
) -> Row:
    """The rows of one model, and its efficiency.

    Efficiency is images/s over what the cores could do if they did nothing but receive, decode and
    run the network. To receiving belong the interrupts in which the kernel takes the packets in:
    of 6 MB they are a quarter of it. The cores that the load generator kept busy meanwhile were
    not the service's: `efficiency` leaves them out, `efficiency_of_all_cores` does not.
    """
    row: Row = {
        "decode_cpu_s": cost["decode"],
        "decode_on_all_cores_cpu_s": cost["crowded"],
        "network_cpu_s": cost["network"],
    }
    for name in ("service", "plain", "litserve"):
        row[name] = {
            str(connections): row_of(rounds)
            for (of, who, connections), rounds in runs.items()
            if (of, who) == (model, name)
        }
    parts = (receive["cpu_s"], receive["interrupts_s"], cost["decode"], cost["network"])
    needed = [sum(each) for each in zip(*parts, strict=True)]
    row["efficiency"], row["efficiency_of_all_cores"] = {}, {}
    for connections, served in row["service"].items():
        pairs = list(zip(served["images_s"], needed, served["generator_share"], strict=True))
        row["efficiency"][connections] = [
            rounded(speed * seconds / (bench.cores - share)) for speed, seconds, share in pairs
        ]
        row["efficiency_of_all_cores"][connections] = [
            rounded(speed * seconds / bench.cores) for speed, seconds, _ in pairs
        ]
    return row


def _report(name: str, found: Row) -> None:
    for model, row in found["models"].items():
        speeds = ", ".join(
            f"{who} {middle(each['images_s']):.1f} at {connections}"
            for who in ("service", "plain", "litserve")
            for connections, each in row[who].items()
        )
        efficiency = ", ".join(f"{middle(each):.2f}" for each in row["efficiency"].values())
        say(f"{name}, {model}: images/s {speeds}; efficiency {efficiency}")
