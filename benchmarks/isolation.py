"""What decoding in processes costs, and what a file that ends its decoder costs others.

    python benchmarks/isolation.py throughput --other CHECKOUT [--rounds 5] [--model swift/1.0.0]
    python benchmarks/isolation.py crashes [--rounds 3] [--model swift/1.0.0]

`throughput` serves this checkout and another one, in turn, to 8 connections. `crashes` serves this
one with decoders that crash, loop or allocate without end when a file asks for it: 8 clients send
honest PNGs, alone and beside one client that sends such files without a pause.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import inputs
import psutil
from companion import Companion, load_generator
from load import Outcome, percentile
from servers import Sampler, Server, running

ROOT = Path(__file__).parent.parent
CONNECTIONS = 8
SYNTAXES = ("png", "jpeg2000", "jpeg-baseline", "rle", "jpeg-lossless", "htj2k", "uncompressed")
HARMS = ("segfault", "loop", "allocate")
SERVE = (
    "import sys; sys.path[:0] = {paths!r}; {more}; from service.cli import main; sys.exit(main())"
)
HOSTILE = (
    "from functools import partial; import service.api.runtime as runtime; "
    "from service.inference.decoder import LIMITS; "
    "runtime.Pipeline = partial(runtime.Pipeline, decode='hostile_decoder:decode', "
    "limits={{lane: each._replace(cpu_seconds={cpu_seconds}) for lane, each in LIMITS.items()}})"
)


def served(checkout: Path, model: str, more: str = "pass", **settings: object) -> Any:
    """A command for `servers`: the service of a checkout."""
    program = SERVE.format(paths=[str(checkout), str(ROOT / "tests")], more=more)
    named = {f"CXRVIEW_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {"CXRVIEW_MODEL": model, "PYTHONPATH": str(checkout), **named}
    words = [sys.executable, "-P", "-c", program.replace("{", "{{").replace("}", "}}")]
    return [*words, "serve", "--port", "{port}"], environment, "/readyz", "/v1/classify"


def load(generator: Companion, server: Server, files: Sequence[Path], seconds: float) -> Outcome:
    """8 clients, each with one request at a time."""
    found = generator.ask(
        ports=[server.port],
        bodies=[str(path) for path in files],
        connections=CONNECTIONS,
        seconds=seconds,
    )
    return Outcome(found)


def load_alone(generator: Companion, server: Server, files: Sequence[Path], secs: float) -> Outcome:
    """The same of a server that holds still before and afterwards."""
    server.resume()
    outcome = load(generator, server, files, secs)
    server.refresh()
    server.pause()
    return outcome


def pss_mb(server: Server) -> int:
    """Of the service and its workers; shared pages counted once."""
    tree = [server.process, *server.process.children(recursive=True)]
    return round(sum(each.memory_full_info().pss for each in tree) / 1e6)


def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Images/s and CPU milliseconds an image of both checkouts, a value a round, in turn.

    On a machine that is not quiet, the ratio of CPU time says more.
    """
    bodies = inputs.bodies(tuple(options.syntaxes))
    limits = {"latency_budget_seconds": 120, "max_held_bytes": 2**30}
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        generator = stack.enter_context(load_generator())
        systems = {}
        for name, checkout in (("other", options.other), ("this", ROOT)):
            server = stack.enter_context(running(served(checkout, options.model, **limits)))
            found[name] = {"ready_s": round(server.ready_s, 2), "idle_pss_mb": pss_mb(server)}
            server.pause()
            systems[name] = server
        for syntax, files in bodies.items():
            rates: dict[str, list[float]] = {name: [] for name in systems}
            cpu_ms: dict[str, list[float]] = {name: [] for name in systems}
            for server in systems.values():
                load_alone(generator, server, files, 0.5)
            for number in range(options.rounds):
                order = list(systems) if number % 2 else list(systems)[::-1]
                for name in order:
                    before = systems[name].cpu_s()
                    outcome = load_alone(generator, systems[name], files, options.seconds)
                    assert not outcome.errors, outcome.statuses
                    spent = systems[name].cpu_s() - before
                    cpu_ms[name].append(round(spent / len(outcome.good) * 1e3, 2))
                    rates[name].append(round(outcome.images_s, 1))
            medians = {name: statistics.median(each) for name, each in rates.items()}
            spent_ms = {name: statistics.median(each) for name, each in cpu_ms.items()}
            found[syntax] = {
                "images_s": rates,
                "cpu_ms": cpu_ms,
                "ratio": round(medians["this"] / medians["other"], 3),
                "ratio_of_cpu": round(spent_ms["other"] / spent_ms["this"], 3),
            }
            print(syntax, json.dumps(found[syntax]), file=sys.stderr)
        for name, server in systems.items():
            found[name]["pss_mb_after"] = pss_mb(server)
    return found


class Attacker(Sampler):
    """One client that sends a file over and over, and counts what it is told."""

    def __init__(self, port: int, word: str) -> None:
        super().__init__(self._attack, 0)
        self.url = f"http://127.0.0.1:{port}/v1/classify"
        self.word = word
        self.codes: Counter[str] = Counter()

    def _attack(self) -> None:
        try:
            with urlopen(Request(self.url, self.word.encode()), timeout=60):
                self.codes["answered"] += 1
        except HTTPError as error:
            self.codes[json.load(error)["code"]] += 1


def crashes(options: argparse.Namespace) -> dict[str, Any]:
    """p99 of honest clients, alone and beside each kind of harm."""
    files = inputs.bodies(("png",))["png"]
    found: dict[str, Any] = {}
    more = HOSTILE.format(cpu_seconds=options.cpu_seconds)
    with ExitStack() as stack:
        generator = stack.enter_context(load_generator())
        settings = {"latency_budget_seconds": 120}
        server = stack.enter_context(running(served(ROOT, options.model, more, **settings)))
        load(generator, server, files, 1)
        for word in HARMS:
            rows = []
            for _ in range(options.rounds):
                alone = load(generator, server, files, options.seconds)
                with Attacker(server.port, word) as attacker:
                    time.sleep(0.1)
                    beside = load(generator, server, files, options.seconds)
                server.refresh()
                rows.append(
                    {
                        "alone_images_s": round(alone.images_s, 1),
                        "beside_images_s": round(beside.images_s, 1),
                        "alone_p99_ms": round(percentile(alone.latencies_s, 0.99) * 1e3, 1),
                        "beside_p99_ms": round(percentile(beside.latencies_s, 0.99) * 1e3, 1),
                        "lost": len(beside.answers) - len(beside.good),
                        "attacker": dict(attacker.codes),
                    }
                )
                print(word, json.dumps(rows[-1]), file=sys.stderr)
            ratios = [each["beside_p99_ms"] / each["alone_p99_ms"] for each in rows]
            found[word] = {"rounds": rows, "p99_ratio": round(statistics.median(ratios), 2)}
    return found


def main() -> None:
    """Measure one of the two, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("throughput", "crashes"))
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    parser.add_argument("--model", default="swift/1.0.0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--syntaxes", nargs="+", choices=inputs.NAMES, default=SYNTAXES)
    parser.add_argument("--cpu-seconds", type=float, default=10, help="of a looping decoder")
    options = parser.parse_args()
    if options.what == "throughput" and options.other is None:
        parser.error("throughput needs --other")
    measure = throughput if options.what == "throughput" else crashes
    print(json.dumps({"cores": psutil.cpu_count(), **measure(options)}, indent=2))


if __name__ == "__main__":
    main()
