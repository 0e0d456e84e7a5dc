"""Everything that a GPU is to show, in twelve minutes, in one call that can be repeated.

    python benchmarks/gpu.py [--results FOLDER] [--data FOLDER] [--back FOLDER] [--minutes 12]
    python benchmarks/gpu.py --miniature     # every line once, on the CPU

Six stages: environment, parity, network, serving, training, fit. Each runs in a process of its own
with its own time limit, and writes its results part by part. What fails is recorded with its
reason, and the next part runs. The same call again skips what is finished and measures the rest.
`benchmarks/carry.md` says how to bring all this to a machine. `docs/gpu.md` is written from
`results.json` by `python benchmarks/gpu_page.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import site
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from carry import pack
from gpu_page import table
from gpu_stages.fit import DEADLINE
from gpu_stages.plan import FULL, LIMITS, MINIATURE
from gpu_stages.record import FAILED, Record
from machine import moment

ROOT = Path(__file__).parent.parent
RESERVE_SECONDS = 10  # at the end: for the table and for what is brought back
LEAST_SECONDS = 5  # for a stage to be started
TRIES = 4  # of a stage whose process ends before its parts are measured
# Of the last stage's run, for later use; a checkpoint is three times as large as the weights
BROUGHT_BACK = ("best.pt", "log.csv", "settings.json", "cutoff.json")


def main() -> None:
    """All stages, or the one that `--stage` names, in this process."""
    options = _options()
    plan = MINIATURE if options.miniature else FULL
    options.results.mkdir(parents=True, exist_ok=True)
    if options.stage:
        record = Record(options.results, options.stage)
        import_module(f"gpu_stages.{options.stage}").run(plan, record, options.data)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and a stage ends with this process
    end = time.time() + plan.patience * 60 * options.minutes - RESERVE_SECONDS
    for stage in options.stages:
        _stage(stage, options, plan.patience * LIMITS[stage], end)
        _gathered(options, plan.name)
    print(table(_gathered(options, plan.name)))


def _stage(stage: str, options: argparse.Namespace, seconds: float, end: float) -> None:
    """Run one, again if its process dies; keep its state and the seconds it took."""
    if Record(options.results, stage).content["state"] == "done":
        print(f"{stage}: done before", flush=True)
        return
    began = time.time()
    last = stage == options.stages[-1]
    deadline = end if last else min(end, began + seconds)
    print(f"{stage}: up to {deadline - began:.0f} s", flush=True)
    state = "no time left"
    for _ in range(TRIES):
        if time.time() > deadline - LEAST_SECONDS:
            break
        state = _child(stage, options, deadline)
        if state in {"done", "out of time"}:
            break
    record = Record(options.results, stage)
    if state == "out of time":
        record.out_of_time()
    if record.parts.get("fit", {}).get("finished") is False:
        state = "out of time"
    record.content["state"] = state
    record.content["seconds"] += round(time.time() - began, 1)
    record.write()
    print(f"{stage}: {state} after {time.time() - began:.0f} s", flush=True)


def _child(stage: str, options: argparse.Namespace, deadline: float) -> str:
    words = [sys.executable, __file__, "--stage", stage, "--results", str(options.results)]
    words += ["--miniature"] * options.miniature
    words += ["--data", str(options.data)] if options.data else []
    environment = os.environ | {DEADLINE: str(deadline), "LD_LIBRARY_PATH": _libraries()}
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        code = process.wait(deadline - time.time())
    except subprocess.TimeoutExpired:
        state = "out of time"
    else:
        state = "done" if code == 0 else f"its process ended with {code}"
    finally:
        _end_group(process.pid)
        process.wait()
    return state


def _end_group(group: int) -> None:
    """With the servers and workers that a stage started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # all of them have ended
        return


def _libraries() -> str:
    """LD_LIBRARY_PATH with the CUDA libraries that pip installed, perhaps for another package."""
    folders = [Path(each) for each in dict.fromkeys([*site.getsitepackages(), *sys.path]) if each]
    found = [str(each) for folder in folders for each in sorted(folder.glob("nvidia/*/lib"))]
    return os.pathsep.join(filter(None, [*found, os.environ.get("LD_LIBRARY_PATH", "")]))


def _gathered(options: argparse.Namespace, plan: str) -> dict[str, Any]:
    """All stages in one file, and what is to be brought back in pieces, should this be the end."""
    stages = {stage: Record(options.results, stage).content for stage in LIMITS}
    known = {"plan": plan, "moment": _moment(), "stages": stages}
    back = options.back or options.results / "back"
    back.mkdir(parents=True, exist_ok=True)
    (back / "results.json").write_text(json.dumps(known, indent=1) + "\n")
    (back / "table.md").write_text(table(known))
    files = [options.results / "run" / name for name in BROUGHT_BACK]
    if FAILED not in stages["fit"]["parts"].get("fit", {FAILED: ""}):
        pack([file for file in files if file.exists()], back, "run", options.piece_mb * 2**20)
    return known


def _moment() -> dict[str, Any]:
    """When and at which commit; a tree that was brought without its history has none."""
    try:
        return moment()
    except (OSError, subprocess.CalledProcessError):
        told = ROOT / "commit.json"
        return dict(json.loads(told.read_text())) if told.exists() else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--data", type=Path, help="manifest.csv, images or images.zip, weights.npz")
    parser.add_argument("--back", type=Path, help="what is brought back; default: RESULTS/back")
    parser.add_argument("--piece-mb", type=int, default=15, help="the largest file brought back")
    parser.add_argument("--minutes", type=float, default=12, help="for all stages together")
    parser.add_argument("--miniature", action="store_true", help="every line once, on the CPU")
    parser.add_argument("--stages", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--stage", choices=LIMITS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
