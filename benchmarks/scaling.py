"""How the service scales with cores: what an image costs, and how long it holds Python's lock.

    python benchmarks/scaling.py [--syntaxes ...] [--cores 1 2] [--quiet-machine]

Of each syntax, on so many cores: images/s, CPU time of the service and of its main process, and the
share of that in which the main process holds Python's lock, by py-spy, which needs root or
ptrace. Prints the tables of docs/scaling.md; `--write` puts them there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import inputs
import psutil
import servers
from bench import rounded, say
from companion import Companion, load_generator, parts
from load import Outcome
from machine import machine, moment

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
THROUGHPUT = ROOT / "benchmarks" / "results" / "throughput.json"
PAGE = ROOT / "docs" / "scaling.md"
MODEL = "swift/1.1.0"  # costs next to nothing beside decoding, so what remains is the rest
RATE = 200  # samples a second
SETTLE_SECONDS = 0.5
NAMED = 3  # functions that hold the lock longest
CHECKED = "jpeg2000"  # the syntax whose scaling docs/throughput.md has
BEGIN, END = "<!-- made by benchmarks/scaling.py -->", "<!-- end -->"
PREDICTED = (1, 2, 4, 8, 16)  # cores

Row = dict[str, Any]


class Predicted(NamedTuple):
    """Images/s."""

    least: float
    most: float
    limit: str  # of `most`


def measure(name: str, cores: int, seconds: float, generator: Companion) -> Row:
    """One syntax on so many cores, which the load generator shares.

    Args:
        name: Of the syntax.
        cores: Taken from those that this process may use.
        seconds: Of each of two samplings.
        generator: Sends the images.
    """
    cpus = sorted(psutil.Process().cpu_affinity() or [0])[:cores]
    files = [str(path) for path in inputs.bodies((name,))[name]]
    settings = servers.AMPLE_LIMITS | {"decode_workers": cores}
    with servers.running(servers.service(MODEL, **settings), cpus) as server, ExitStack() as stack:
        decoders = [stack.enter_context(parts()) for _ in range(cores)]
        for cpu, decoder in zip(cpus, decoders, strict=True):
            psutil.Process(decoder.process.pid).cpu_affinity([cpu])
        decode = [_decoded(decoders[:count], files) for count in (1, cores)]
        load = {"ports": [server.port], "bodies": files, "connections": 4 * cores}
        generator.ask(**load, seconds=0, images=4)
        whole, main = server.cpu_s(), _cpu_s(server.process)
        began = time.perf_counter()
        generator.send(**load, seconds=2 * seconds + 4 * SETTLE_SECONDS)
        time.sleep(SETTLE_SECONDS)
        holding = sampled(server.process.pid, seconds, "--gil")
        working = sampled(server.process.pid, seconds)
        outcome = Outcome(generator.receive())
        wall = time.perf_counter() - began
        whole, main = server.cpu_s() - whole, _cpu_s(server.process) - main
    images = max(1, len(outcome.good))
    return {
        "images_s": rounded(outcome.images_s),
        "cpu_ms": rounded(1e3 * whole / images),
        "main_cpu_ms": rounded(1e3 * main / images),
        "samples_holding": holding.total(),
        "samples_running": working.total(),
        "lock_of_main": rounded(min(1.0, holding.total() / max(1, working.total()))),
        "lock_share_of_time": rounded(holding.total() / (RATE * seconds)),
        "decode_cpu_ms": rounded(decode[0]),
        "decode_on_all_cores_cpu_ms": rounded(decode[1]),
        "megabytes": rounded(statistics.mean(Path(file).stat().st_size for file in files) / 1e6),
        "generator_cores": rounded(outcome.cpu_s / wall),
        "busy_cores": rounded((whole + outcome.cpu_s) / wall),
        "holders": [f"{where} {count}" for where, count in holding.most_common(NAMED)],
        "images": images,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _decoded(decoders: list[Companion], files: list[str]) -> float:
    for decoder in decoders:
        decoder.send(part="decode", model=MODEL, paths=files, seconds=1)
    return 1e3 * statistics.mean([float(decoder.receive()["cpu_s"]) for decoder in decoders])


def sampled(pid: int, seconds: float, *how: str) -> Counter[str]:
    """Samples by the innermost function: of threads that run, or with --gil of that which holds it.

    Raises:
        subprocess.CalledProcessError: py-spy may not look at the process.
    """
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    with tempfile.NamedTemporaryFile("r") as out:
        words = [spy, "record", *how, "--pid", str(pid), "--duration", str(round(seconds))]
        words += ["--rate", str(RATE), "--format", "raw", "--output", out.name]
        subprocess.run(words, check=True, capture_output=True)
        return innermost(Path(out.name).read_text())


def innermost(raw: str) -> Counter[str]:
    """py-spy's raw form, `outer;...;inner count` a line -> counts by the innermost function."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        found[re.sub(r":\d+\)$", ")", stack.split(";")[-1])] += int(count)
    return found


def predicted(row: Row, cores: int) -> Predicted:
    """Images/s on so many cores, between two bounds, and what limits the upper one.

    Below: what the main process does, it does on one core, and the others wait (Amdahl). Above: all
    cores work, until the one thread that receives works all the time, or Python's lock is always
    held.

    Args:
        row: Of an image: `cpu_ms`; of it `main_ms` outside decoding and the network; of that
            `receive_ms` and `lock_ms`. Each further core slows the others by the share `stretch`,
            through memory.
        cores: Of the pod.
    """
    cpu_ms = row["cpu_ms"] * (1 + row["stretch"] * (cores - 1))
    most = {
        "cores": cores / cpu_ms,
        "receiving": 1 / row["receive_ms"],
        "Python's lock": 1 / row["lock_ms"],
    }
    limit = min(most, key=most.__getitem__)
    least = 1e3 / (row["main_ms"] + (cpu_ms - row["main_ms"]) / cores)
    return Predicted(least, 1e3 * most[limit], limit)


def rows_of(throughput: Row, scaling: Row) -> dict[str, Row]:
    """By syntax: the CPU times of docs/throughput.md, and the lock's share of the main process's.

    The share is that of all syntaxes together: on a busy machine, that of one is of few samples.
    """
    measured = scaling["rows"].values()
    holding, running = (
        sum(row[f"samples_{what}"] for row in measured) for what in ("holding", "running")
    )
    found = {}
    for name, syntax in throughput["syntaxes"].items():
        own = syntax["models"][MODEL]
        served = own["service"]["8"]
        alone, crowded, network, cpu, interrupts = (
            1e3 * statistics.median(values)
            for values in (
                *(own["decode_cpu_s"], own["decode_on_all_cores_cpu_s"], own["network_cpu_s"]),
                *(served["cpu_s"], served["interrupts_s"]),
            )
        )
        main = max(0.0, cpu - alone - network)
        found[name] = {
            "megabytes": syntax["megabytes"],
            "cpu_ms": cpu + interrupts,
            "decode_ms": alone,
            "main_ms": main,
            "receive_ms": 1e3 * statistics.median(syntax["receive"]["cpu_s"]),
            "lock_ms": main * holding / running,
            "stretch": max(0.0, crowded / alone - 1),
        }
    return found


def tables(throughput: Row, scaling: Row) -> str:
    """The tables of docs/scaling.md."""
    rows = rows_of(throughput, scaling)
    parts = (_cost_table(rows), _check_table(throughput, rows), _prediction_table(rows))
    return "\n".join((_said(scaling), *parts))


def _said(scaling: Row) -> str:
    """On what the lock was measured."""
    rows = scaling["rows"].values()
    images = sum(row["images"] for row in rows)
    kind, remark = "quiet", ""
    if not all(row["quiet"] for row in rows):
        kind, remark = "busy", " Take it as a rough estimate."
    return (
        f"The lock's share was measured on a {kind} machine, on {images} images of all syntaxes "
        f"together.{remark}\n"
    )


def _cost_table(rows: dict[str, Row]) -> str:
    lines = [
        (
            "| syntax | MB | CPU, ms | decoding, ms | main process, ms | receiving, ms | lock, ms "
            "| second core |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row['megabytes']:.3g} | {row['cpu_ms']:.1f} | {row['decode_ms']:.1f} "
        f"| {row['main_ms']:.1f} | {row['receive_ms']:.1f} | {row['lock_ms']:.1f} "
        f"| +{100 * row['stretch']:.0f} % |"
        for name, row in rows.items()
    ]
    return "\n".join((*lines, ""))


def _check_table(throughput: Row, rows: dict[str, Row]) -> str:
    """From one core to two, of what docs/throughput.md measured in one run."""
    lines = [
        "| model | 1 core, measured | 2 cores, predicted | 2 cores, measured | within |",
        "| --- | --- | --- | --- | --- |",
    ]
    for model, shapes in throughput["scaling"].items():
        one, two = (
            statistics.median(shapes[f"1 process on {cores}"]["images_s"])
            for cores in ("1 core", "2 cores")
        )
        found = predicted(rows[CHECKED] | {"cpu_ms": 1e3 / one}, 2)
        within = "yes" if found.least <= two <= found.most else "no"
        lines.append(f"| {model} | {one:.1f} | {_range(found)} | {two:.1f} | {within} |")
    return "\n".join((*lines, ""))


def _range(found: Predicted) -> str:
    least, most = f"{found.least:.0f}", f"{found.most:.0f}"
    return most if least == most else f"{least} to {most}"


def _prediction_table(rows: dict[str, Row]) -> str:
    names = " | ".join(f"{cores} cores" if cores > 1 else "1 core" for cores in PREDICTED)
    lines = [f"| syntax | {names} | limit at 16 |", f"| --- |{' --- |' * (len(PREDICTED) + 1)}"]
    for name, row in rows.items():
        found = [predicted(row, cores) for cores in PREDICTED]
        lines.append(f"| {name} | {' | '.join(map(_range, found))} | {found[-1].limit} |")
    return "\n".join((*lines, ""))


def written(page: str, made: str) -> str:
    """The page with these tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Measure, merge into the results, print the tables."""
    options = _options()
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    usable = len(psutil.Process().cpu_affinity() or [0])
    with load_generator() as generator:
        for cores in (each for each in options.cores if each <= usable):
            for name in options.syntaxes:
                row = measure(name, cores, options.seconds, generator)
                row |= {"quiet": options.quiet_machine, **moment()}
                content["rows"][f"{name}, {cores}"] = row
                content["machine"] = machine()
                RESULTS.write_text(json.dumps(content, indent=1) + "\n")
                say(f"{name}, {cores}: {row}")
    made = tables(json.loads(THROUGHPUT.read_text()), content)
    print(made)
    if options.write:
        PAGE.write_text(written(PAGE.read_text(), made))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--syntaxes", nargs="*", choices=inputs.NAMES, default=inputs.NAMES)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="of each sampling")
    parser.add_argument("--quiet-machine", action="store_true", help="nothing else runs here")
    parser.add_argument("--write", action="store_true", help="the tables into docs/scaling.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
