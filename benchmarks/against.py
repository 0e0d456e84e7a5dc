"""This checkout beside another one, in turns within each round: images/s and CPU an image.

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before [--models swift/1.0.0 ...] [--syntaxes png ...]

Both run with the packages of this environment. A ratio above 1 says that this checkout is faster.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import inputs
import servers
from bench import Bench, Measured, Plan, middle, rounded, say
from companion import load_generator
from machine import machine, moment

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "against.json"
MODELS = ("googlenet/1.0.0", "swift/1.0.0")


def checkout(root: Path, model: str, settings: dict[str, str]) -> servers.Command:
    """`cxrview serve` of another checkout."""
    words, environment, ready, target = servers.service(model, **servers.AMPLE_LIMITS, **settings)
    # Without the second, Python would take the modules of the folder it is started in
    paths = {"PYTHONPATH": str(root.resolve()), "PYTHONSAFEPATH": "1"}
    return words, environment | paths, ready, target


def compare(
    bench: Bench, roots: dict[str, Path], model: str, connections: int, settings: dict[str, str]
) -> dict[str, Any]:
    """By syntax: a value a round of each, and the median of their ratios."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        running = {}
        for name, root in roots.items():
            chosen = settings if name == "here" else {}
            running[name] = stack.enter_context(servers.running(checkout(root, model, chosen)))
            running[name].pause()
        for syntax in bench.bodies:
            files = bench.files(syntax)
            for server in running.values():  # what a first request pays for is not measured
                bench.measure([server], bodies=files, connections=4, seconds=0, images=8)
            rounds: dict[str, list[Measured]] = defaultdict(list)
            for number in range(bench.plan.rounds):
                names = list(running)
                for name in names if number % 2 else reversed(names):
                    rounds[name].append(
                        bench.measure(
                            [running[name]],
                            bodies=files,
                            connections=connections,
                            seconds=bench.plan.seconds,
                        )
                    )
            found[syntax] = _row(rounds)
            say(f"{model}, {syntax}: {found[syntax]}")
    return found


def _row(rounds: dict[str, list[Measured]]) -> dict[str, Any]:
    speeds = {name: [each.outcome.images_s for each in runs] for name, runs in rounds.items()}
    costs = {
        name: [each.cpu_s / max(1, len(each.outcome.good)) for each in runs]
        for name, runs in rounds.items()
    }
    ratios = [ours / theirs for ours, theirs in zip(speeds["here"], speeds["there"], strict=True)]
    return {
        "ratio": rounded(middle(ratios)),
        "ratios": [rounded(ratio) for ratio in ratios],
        "cpu_ratio": rounded(middle(costs["here"]) / middle(costs["there"])),
        "images_s": {name: rounded(middle(values)) for name, values in speeds.items()},
        "errors": {name: sum(each.outcome.errors for each in rounds[name]) for name in rounds},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write `results/against.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--syntaxes", nargs="+", default=inputs.NAMES, choices=inputs.NAMES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="of ours")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    settings = dict(each.split("=", 1) for each in options.settings)
    roots = {"there": options.other, "here": HERE.parent}
    content: dict[str, Any] = {"machine": machine(), **moment(), "models": {}}
    with load_generator() as generator:
        bench = Bench(
            Plan(options.rounds, options.seconds),
            inputs.bodies(tuple(options.syntaxes)),
            tuple(options.models),
            Path(),
            generator,
        )
        for model in options.models:
            content["models"][model] = compare(bench, roots, model, options.connections, settings)
            options.results.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
