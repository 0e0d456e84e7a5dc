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
from typing import Any

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
PREDICTED = (1, 2, 4, 8, 16)  # cores

Row = dict[str, Any]


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
    share = min(1.0, holding.total() / max(1, working.total()))
    return {
        "images_s": rounded(outcome.images_s),
        "cpu_ms": rounded(1e3 * whole / images),
        "main_cpu_ms": rounded(1e3 * main / images),
        "lock_of_main": rounded(share),
        "lock_ms": rounded(1e3 * share * main / images),
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
    return 1e3 * statistics.mean(decoder.receive()["cpu_s"] for decoder in decoders)


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


def predicted(row: Row, cores: int) -> tuple[float, str]:
    """Images/s at most on so many cores, and what limits them.

    Cores work in parallel until the main process holds Python's lock all the time. Each further
    core slows the others down as much as the second did, where this was measured.

    Args:
        row: A measurement on one core: `cpu_ms`, `lock_ms`, and `stretch` if it is known.
        cores: Of the pod.
    """
    by_cores = cores / (row["cpu_ms"] * (1 + row.get("stretch", 0.0) * (cores - 1)) / 1e3)
    by_lock = 1e3 / row["lock_ms"] if row["lock_ms"] else float("inf")
    return min(by_cores, by_lock), "cores" if by_cores <= by_lock else "Python's lock"


def rows_of(throughput: Row, scaling: Row) -> dict[str, Row]:
    """By syntax: the CPU time of docs/throughput.md, and the share of it that holds the lock.

    CPU times are of a quiet machine. A share changes little beside other work, a time does.
    """
    found = {}
    for name, syntax in throughput["syntaxes"].items():
        locked = scaling["rows"].get(f"{name}, 1")
        if locked is None:
            continue
        own = syntax["models"][MODEL]
        of_cpu = locked["lock_ms"] / locked["cpu_ms"]
        served = own["service"]["8"]
        middle = statistics.median
        alone, crowded = middle(own["decode_cpu_s"]), middle(own["decode_on_all_cores_cpu_s"])
        cpu_ms = 1e3 * middle(served["cpu_s"])
        found[name] = {
            "cpu_ms": cpu_ms + 1e3 * middle(served["interrupts_s"]),
            "decode_ms": 1e3 * alone,
            "stretch": max(0.0, crowded / alone - 1),
            "lock_ms": of_cpu * cpu_ms,
            "megabytes": syntax["megabytes"],
        }
    return found


def tables(throughput: Row, scaling: Row) -> str:
    """The tables of docs/scaling.md."""
    rows = rows_of(throughput, scaling)
    return "\n".join((_cost_table(rows), _check_table(throughput), _prediction_table(rows)))


def _cost_table(rows: dict[str, Row]) -> str:
    lines = [
        "| syntax | MB | CPU, ms | of it decoding, ms | Python's lock, ms | second core |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row['megabytes']:.3g} | {row['cpu_ms']:.1f} | {row['decode_ms']:.1f} "
        f"| {row['lock_ms']:.1f} | +{100 * row['stretch']:.0f} % |"
        for name, row in rows.items()
    ]
    return "\n".join((*lines, ""))


def _check_table(throughput: Row) -> str:
    """From one core to two, of what docs/throughput.md measured in one run."""
    lines = [
        "| model | 1 core, measured | 2 cores, predicted | 2 cores, measured | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for model, shapes in throughput["scaling"].items():
        one, two = (
            statistics.median(shapes[f"1 process on {cores}"]["images_s"])
            for cores in ("1 core", "2 cores")
        )
        lines.append(
            f"| {model} | {one:.1f} | {2 * one:.1f} | {two:.1f} | {two / 2 / one - 1:+.0%} |"
        )
    return "\n".join((*lines, ""))


def _prediction_table(rows: dict[str, Row]) -> str:
    names = " | ".join(f"{cores} cores" if cores > 1 else "1 core" for cores in PREDICTED)
    lines = [f"| syntax | {names} | limit at 16 |", f"| --- |{' --- |' * (len(PREDICTED) + 1)}"]
    for name, row in rows.items():
        found = [predicted(row, cores) for cores in PREDICTED]
        cells = " | ".join(f"{speed:.0f}" for speed, _ in found)
        lines.append(f"| {name} | {cells} | {found[-1][1]} |")
    return "\n".join((*lines, ""))


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
    found = tables(json.loads(THROUGHPUT.read_text()), content)
    print(found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--syntaxes", nargs="*", choices=inputs.NAMES, default=inputs.NAMES)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="of each sampling")
    parser.add_argument("--quiet-machine", action="store_true", help="nothing else runs here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
